package canon

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

type sample struct {
	_     struct{} `cbor:",toarray"`
	ID    [4]byte
	Name  string
	Count uint32
	Data  []byte
	List  []string
	Map   map[uint8]uint8
}

func TestRoundTrip(t *testing.T) {
	in := sample{ID: [4]byte{1, 2, 3, 4}, Name: "a", Count: 300, Data: []byte{}, List: []string{"x"}, Map: map[uint8]uint8{3: 1, 1: 2}}
	b, err := Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(b), "8644010203046161"+"19012c"+"40"+"816178"+"a201020301"; got != want {
		t.Errorf("encoded %s, want %s", got, want)
	}
	var out sample
	if err := Unmarshal(b, &out); err != nil || out.Name != "a" || out.ID != in.ID || out.Map[1] != 2 {
		t.Errorf("got %+v, %v", out, err)
	}
}

func TestRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":               "",
		"cut":                 "86440102030461",
		"trailing byte":       "8644010203046161" + "19012c" + "40" + "816178" + "a201020301" + "00",
		"longer integer":      "8644010203046161" + "1a0000012c" + "40" + "816178" + "a201020301",
		"longer length":       "864401020304" + "780161" + "19012c" + "40" + "816178" + "a201020301",
		"map unsorted":        "8644010203046161" + "19012c" + "40" + "816178" + "a203010102",
		"key twice":           "8644010203046161" + "19012c" + "40" + "816178" + "a201020102",
		"short array":         "8643010203" + "6161" + "19012c" + "40" + "816178" + "a201020301",
		"long array":          "864501020304056161" + "19012c" + "40" + "816178" + "a201020301",
		"indefinite array":    "9f44010203046161" + "19012c" + "40" + "816178" + "a201020301" + "ff",
		"indefinite string":   "86440102030461" + "61" + "19012c" + "5f40ff" + "816178" + "a201020301",
		"tag":                 "86c144010203046161" + "19012c" + "40" + "816178" + "a201020301",
		"missing field":       "8544010203046161" + "19012c" + "40" + "816178",
		"field too many":      "8744010203046161" + "19012c" + "40" + "816178" + "a201020301" + "00",
		"null for bytes":      "8644010203046161" + "19012c" + "f6" + "816178" + "a201020301",
		"wrong type":          "8644010203044161" + "19012c" + "40" + "816178" + "a201020301",
		"integer too large":   "8644010203046161" + "1b0000000100000000" + "40" + "816178" + "a201020301",
		"float for integer":   "8644010203046161" + "f93c00" + "40" + "816178" + "a201020301",
		"invalid UTF-8":       "86440102030461ff" + "19012c" + "40" + "816178" + "a201020301",
		"array length a lie":  "86440102030461619a7fffffff",
		"string length a lie": "86440102030461617b7fffffffffffffff",
		"nested too deep":     strings.Repeat("81", 40) + "00",
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		var v sample
		if err := Unmarshal(b, &v); err == nil {
			t.Errorf("%s: accepted as %+v", name, v)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	b, err := Marshal(sample{ID: [4]byte{1}, Name: "n", Data: []byte{1}, List: []string{"x", "y"}, Map: map[uint8]uint8{1: 2}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var v sample
		if Unmarshal(b, &v) != nil {
			return
		}
		again, err := Marshal(v)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x comes back as %x, %v", b, again, err)
		}
	})
}
