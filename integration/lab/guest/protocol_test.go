package guest

import (
	"encoding/base64"
	"strconv"
	"testing"
)

func TestProtocol(t *testing.T) {
	if got, want := string(appendCommand(nil, 7, "ip addr")), "7 aXAgYWRkcg==\n"; got != want {
		t.Errorf("command is %q, want %q", got, want)
	}
	for name, test := range map[string]struct {
		line string
		want answer
	}{
		"ready":          {"0 0 ", answer{}},
		"output":         {"7 0 aGVsbG8K", answer{number: 7, output: "hello\n"}},
		"status":         {"8 127 ", answer{number: 8, status: 127}},
		"carriage":       {"9 1 YQ==\r", answer{number: 9, status: 1, output: "a"}},
		"largest number": {"18446744073709551615 255", answer{number: 1<<64 - 1, status: 255}},
	} {
		if got, err := parseAnswer(test.line); err != nil || got != test.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, test.want)
		}
	}
	for name, line := range map[string]string{
		"nothing": "", "a number": "7", "status too large": "7 256", "negative": "-1 0", "no base64": "7 0 hello", "too much": "7 0 YQ== YQ==",
	} {
		if got, err := parseAnswer(line); err == nil {
			t.Errorf("%s was taken for %+v", name, got)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add("7 0 aGVsbG8K")
	f.Add("0 0 ")
	f.Fuzz(func(t *testing.T, line string) {
		a, err := parseAnswer(line)
		if err != nil {
			return
		}
		again := strconv.FormatUint(a.number, 10) + " " + strconv.Itoa(a.status) + " " + base64.StdEncoding.EncodeToString([]byte(a.output))
		if b, err := parseAnswer(again); err != nil || a != b {
			t.Errorf("%q is %+v, and written again %+v (%v)", line, a, b, err)
		}
	})
}
