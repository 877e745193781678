// Package l2test has the in-memory twin of a TAP and the test that both have to
// pass. The twin needs no right and no system, and works inside testing/synctest.
//
//	Inject ---> [queue] ---> Device.Read ---> switch
//	Frames <--- [queue] <--- Device.Write <-- switch
package l2test
