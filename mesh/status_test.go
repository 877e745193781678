package mesh

import (
	"testing"

	"meshd/peer/udp"
)

// small is a socket that got less than it asked for.
type small struct {
	udp.Conn
	rcv, snd int
}

func (s small) Buffers() (rcv, snd int) { return s.rcv, s.snd }

func TestBufferHealth(t *testing.T) {
	full := small{rcv: udp.DefaultBuffer, snd: udp.DefaultBuffer}
	for name, test := range map[string]struct {
		conns []udp.Conn
		want  bool
	}{
		"enough":            {[]udp.Conn{full, full}, false},
		"more":              {[]udp.Conn{small{rcv: 2 * udp.DefaultBuffer, snd: 3 * udp.DefaultBuffer}}, false},
		"in memory":         {[]udp.Conn{struct{ udp.Conn }{}}, false},
		"little to send":    {[]udp.Conn{full, small{rcv: udp.DefaultBuffer, snd: 212992}}, true},
		"little to receive": {[]udp.Conn{small{rcv: 212992, snd: udp.DefaultBuffer}, full}, true},
	} {
		got := bufferHealth(test.conns)
		if (len(got) == 1) != test.want {
			t.Errorf("%s: %+v", name, got)
		}
		if len(got) == 1 && (got[0].Code != "socket-buffers" || got[0].Remedy == "") {
			t.Errorf("%s: %+v", name, got[0])
		}
	}
}
