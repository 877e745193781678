package guest

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// answer is what has come of a command; number 0 says that the guest is ready.
type answer struct {
	number uint64
	status int
	output string
}

// appendCommand writes a line as init.sh reads it.
func appendCommand(b []byte, number uint64, command string) []byte {
	b = append(strconv.AppendUint(b, number, 10), ' ')
	return append(base64.StdEncoding.AppendEncode(b, []byte(command)), '\n')
}

// parseAnswer reads a line as init.sh writes it, without its end.
func parseAnswer(line string) (answer, error) {
	fields := strings.Fields(line)
	if len(fields) == 2 {
		fields = append(fields, "") // the command has printed nothing
	}
	if len(fields) != 3 {
		return answer{}, fmt.Errorf("answer of guest has %d fields", len(fields))
	}
	number, err := strconv.ParseUint(fields[0], 10, 64)
	if err != nil {
		return answer{}, fmt.Errorf("answer of guest: %w", err)
	}
	status, err := strconv.ParseUint(fields[1], 10, 8)
	if err != nil {
		return answer{}, fmt.Errorf("answer of guest: %w", err)
	}
	output, err := base64.StdEncoding.DecodeString(fields[2])
	if err != nil {
		return answer{}, fmt.Errorf("answer of guest: %w", err)
	}
	return answer{number: number, status: int(status), output: string(output)}, nil
}
