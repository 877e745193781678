package main

import "testing"

func TestAmounts(t *testing.T) {
	for _, c := range []struct {
		parse func(string) (uint64, error)
		text  string
		want  uint64
		ok    bool
	}{
		{parseRate, "10mbit", 10_000_000, true},
		{parseRate, "1.5Gbit/s", 1_500_000_000, true},
		{parseRate, "800", 800, true},
		{parseRate, "64kbps", 0, false},
		{parseRate, "64 kbit", 64_000, true},
		{parseRate, "0", 0, true},
		{parseRate, "", 0, false},
		{parseRate, "-1mbit", 0, false},
		{parseRate, "1e9999", 0, false},
		{parseRate, "99999999tbit", 0, false},
		{parseRate, "0.1", 0, false},
		{parseRate, "fast", 0, false},
		{parseVolume, "100GB/month", 100_000_000_000, true},
		{parseVolume, "1TiB", 1 << 40, true},
		{parseVolume, "500mb", 500_000_000, true},
		{parseVolume, "0", 0, true},
		{parseVolume, "100GB/day", 0, false},
		{parseVolume, "1.2.3GB", 0, false},
	} {
		got, err := c.parse(c.text)
		if (err == nil) != c.ok || got != c.want {
			t.Errorf("%q: %d, %v", c.text, got, err)
		}
	}
}

func TestShareFlags(t *testing.T) {
	c := upConfig(t, "", "--relay", "off", "--share-rate", "10mbit", "--share-volume", "5GB").Share
	if c.On == nil || *c.On || c.RateBPS == nil || *c.RateBPS != 10_000_000 || c.VolumeBytes == nil || *c.VolumeBytes != 5_000_000_000 {
		t.Errorf("%+v", c)
	}
	if c := upConfig(t, "").Share; c.On != nil || c.RateBPS != nil || c.VolumeBytes != nil {
		t.Errorf("defaults: %+v", c)
	}
	for _, args := range [][]string{
		{"up", "--relay", "maybe"},
		{"up", "--share-rate", "x"},
		{"up", "--share-volume", "1GB/day"},
		{"share", "--on", "--off"},
		{"share", "--rate", ""},
		{"share", "--volume", "much"},
		{"share", "x"},
	} {
		if r := runIt(t, args...); r.status != 2 {
			t.Errorf("%q: %+v", args, r)
		}
	}
}
