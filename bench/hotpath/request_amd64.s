#include "textflag.h"

// func request(args *[6]uint64)
//
// A client request of valgrind (valgrind.h): these instructions do nothing on a
// processor, and valgrind looks for them.
TEXT ·request(SB), NOSPLIT, $0-8
	MOVQ args+0(FP), AX
	XORQ DX, DX
	ROLQ $3, DI
	ROLQ $13, DI
	ROLQ $61, DI
	ROLQ $51, DI
	XCHGQ BX, BX
	RET
