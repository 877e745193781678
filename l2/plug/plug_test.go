package plug

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"meshd/l2"
	"meshd/l2/offload"
)

var _ l2.Device = (*Cable)(nil)

func TestParseSpec(t *testing.T) {
	for text, want := range map[string]Spec{
		"vde:/run/a": {"vde", "/run/a"}, "stream:b": {"stream", "b"}, "dgram:/c:d": {"dgram", "/c:d"},
		"": {}, "vde": {}, "vde:": {}, "tap:x": {}, "/run/a": {},
	} {
		got, err := ParseSpec(text)
		if got != want || (err == nil) != (want != Spec{}) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if err == nil && got.String() != text {
			t.Errorf("%q comes back as %q", text, got)
		}
	}
}

// framed puts lengths before frames.
func framed(f framing, frames ...[]byte) (b []byte) {
	for _, frame := range frames {
		if f == framingVDE {
			b = binary.BigEndian.AppendUint16(b, uint16(len(frame)))
		} else {
			b = binary.BigEndian.AppendUint32(b, uint32(len(frame)))
		}
		b = append(b, frame...)
	}
	return b
}

func frameOf(size int) []byte { return bytes.Repeat([]byte{byte(size)}, size) }

// readAll reads frames until the cable ends.
func readAll(c *Cable) (frames [][]byte, err error) {
	batch := make([]offload.Frame, 128)
	for {
		n, err := c.Read(batch)
		for _, f := range batch[:n] {
			frames = append(frames, bytes.Clone(f.Data))
		}
		if err != nil {
			return frames, err
		}
	}
}

func TestFraming(t *testing.T) {
	small, whole, jumbo := frameOf(14), frameOf(1514), frameOf(maxFrame)
	tests := map[string]struct {
		framing framing
		sent    []byte
		want    [][]byte
		err     error
	}{
		"vde":                {framingVDE, framed(framingVDE, small, whole, jumbo), [][]byte{small, whole, jumbo}, io.EOF},
		"qemu":               {framingQEMU, framed(framingQEMU, small, whole, jumbo), [][]byte{small, whole, jumbo}, io.EOF},
		"nothing":            {framingVDE, nil, nil, io.EOF},
		"too long":           {framingVDE, framed(framingVDE, frameOf(maxFrame+1), small), [][]byte{small}, io.EOF},
		"a super-frame":      {framingQEMU, framed(framingQEMU, frameOf(1<<16), small), [][]byte{small}, io.EOF},
		"no length":          {framingVDE, framed(framingVDE, small, nil, small), [][]byte{small}, errFraming},
		"absurd":             {framingQEMU, []byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3}, nil, errFraming},
		"cut in a length":    {framingQEMU, append(framed(framingQEMU, small), 0, 0), [][]byte{small}, io.ErrUnexpectedEOF},
		"cut in a frame":     {framingVDE, append(framed(framingVDE, small), 0, 9, 1), [][]byte{small}, io.ErrUnexpectedEOF},
		"cut in a long one":  {framingVDE, append([]byte{0x30, 0}, small...), nil, io.ErrUnexpectedEOF},
		"many in one moment": {framingVDE, framed(framingVDE, bytes16(small, 200)...), bytes16(small, 200), io.EOF},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newStream(test.framing, bytes.NewReader(test.sent), io.Discard, func() error { return nil })
			c := newCable("test", s)
			defer c.Close()
			got, err := readAll(c)
			if !errors.Is(err, test.err) {
				t.Errorf("ended with %v, want %v", err, test.err)
			}
			if len(got) != len(test.want) {
				t.Fatalf("%d frames, want %d", len(got), len(test.want))
			}
			for i := range got {
				if !bytes.Equal(got[i], test.want[i]) {
					t.Errorf("frame %d is not the one sent", i)
				}
			}
		})
	}
}

func bytes16(frame []byte, n int) (list [][]byte) {
	for range n {
		list = append(list, frame)
	}
	return list
}

// TestSlowReaderHoldsNobodyUp writes to an end that reads nothing.
func TestSlowReaderHoldsNobodyUp(t *testing.T) {
	r, w := io.Pipe()
	s := newStream(framingVDE, bytes.NewReader(nil), w, w.Close)
	c := newCable("test", s)
	const sent = 3 * queueFrames
	for range sent {
		if err := c.Write([]offload.Frame{{Data: frameOf(1514)}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Dropped(); got < sent-2*queueFrames || got == sent {
		t.Errorf("%d of %d dropped", got, sent)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	r.Close()
}

func FuzzFraming(f *testing.F) {
	f.Add(true, framed(framingVDE, frameOf(14), frameOf(100)))
	f.Add(false, framed(framingQEMU, frameOf(14), frameOf(1<<16)))
	f.Add(false, []byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, vde bool, sent []byte) {
		kind := framingQEMU
		if vde {
			kind = framingVDE
		}
		c := newCable("test", newStream(kind, bytes.NewReader(sent), io.Discard, func() error { return nil }))
		defer c.Close()
		frames, err := readAll(c)
		if err == nil {
			t.Fatal("no end")
		}
		again := framed(kind, frames...)
		if errors.Is(err, io.EOF) && len(again) == len(sent) && !bytes.Equal(again, sent) {
			t.Fatal("other frames than were sent")
		}
		if len(again) > len(sent) {
			t.Fatal("more frames than were sent")
		}
	})
}

func request(name string) []byte {
	b := binary.NativeEndian.AppendUint32(nil, vdeMagic)
	b = binary.NativeEndian.AppendUint32(b, vdeVersion)
	b = binary.NativeEndian.AppendUint32(b, vdeNewPort)
	return append(appendSockaddr(b, name), "vdeplug: user=x"...)
}

func TestParseRequest(t *testing.T) {
	good := request("/tmp/x")
	change := func(at int, v byte) []byte {
		b := bytes.Clone(good)
		b[at] = v
		return b
	}
	for name, test := range map[string]struct {
		b    []byte
		want string
	}{
		"good":           {good, "/tmp/x"},
		"no description": {good[:requestLen], "/tmp/x"},
		"short":          {good[:requestLen-1], ""},
		"magic":          {change(0, 1), ""},
		"version":        {change(4, 2), ""},
		"type":           {change(8, 1), ""},
		"family":         {change(12, 2), ""},
		"no name":        {request(""), ""},
	} {
		got, err := parseRequest(test.b)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(request("/run/vde/.1234-00000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		name, err := parseRequest(b)
		if err == nil && !bytes.Equal(request(name)[12:requestLen], append(bytes.Clone(b[12:12+2+len(name)]), make([]byte, sockaddrLen-2-len(name))...)) {
			t.Fatalf("%q is not what stands there", name)
		}
	})
}
