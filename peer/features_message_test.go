package peer

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"
)

func TestFeaturesExactBytes(t *testing.T) {
	for want, got := range map[string][]byte{
		"1001010001020304050607": appendFeatures(nil, featurePartial, flagAnswer, time.Unix(0, 0x0001020304050607)),
		"1000010000000000000001": appendFeatures(nil, featurePartial, 0, time.Unix(0, 1)),
		"100000ffffffffffffffff": appendFeatures(nil, 0, 0, time.Unix(0, -1)), // a clock before 1970
	} {
		if hex.EncodeToString(got) != want {
			t.Errorf("got %x, want %s", got, want)
		}
	}
	for text, ok := range map[string]bool{"": false, "10": false, "1001": false, "110101": false, "10ff01": true, "100101ffff": true} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, at, got := parseFeatures(b); got != ok || !at.IsZero() {
			t.Errorf("%q: taken: %v, want %v; time %v", text, got, ok, at)
		}
	}
}

func FuzzFeatures(f *testing.F) {
	f.Add([]byte{controlFeatures, flagAnswer, featurePartial})
	f.Add([]byte{controlFeatures, 0xfe, 0xff, 1})
	f.Fuzz(func(t *testing.T, body []byte) {
		features, answer, at, ok := parseFeatures(body)
		if !ok {
			return
		}
		flags := byte(0)
		if answer {
			flags = flagAnswer
		}
		again := appendFeatures(nil, features, flags, at)
		end := featuresTimed
		if at.IsZero() {
			end = featuresLen
		}
		if again[0] != body[0] || again[1] != body[1]&flagAnswer || !bytes.Equal(again[2:end], body[2:end]) {
			t.Fatalf("%x is read as %d, %v", body, features, answer)
		}
	})
}
