package peer

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func TestFeaturesExactBytes(t *testing.T) {
	for want, got := range map[string][]byte{
		"100101": appendFeatures(nil, featurePartial, flagAnswer),
		"100001": appendFeatures(nil, featurePartial, 0),
		"100000": appendFeatures(nil, 0, 0),
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
		if _, _, got := parseFeatures(b); got != ok {
			t.Errorf("%q: taken: %v, want %v", text, got, ok)
		}
	}
}

func FuzzFeatures(f *testing.F) {
	f.Add([]byte{controlFeatures, flagAnswer, featurePartial})
	f.Add([]byte{controlFeatures, 0xfe, 0xff, 1})
	f.Fuzz(func(t *testing.T, body []byte) {
		features, answer, ok := parseFeatures(body)
		if !ok {
			return
		}
		flags := byte(0)
		if answer {
			flags = flagAnswer
		}
		if again := appendFeatures(nil, features, flags); again[0] != body[0] || again[1] != body[1]&flagAnswer || !bytes.Equal(again[2:], body[2:featuresLen]) {
			t.Fatalf("%x is read as %d, %v", body, features, answer)
		}
	})
}
