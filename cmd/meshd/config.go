package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/pflag"

	"meshd/mesh/api"
)

// maxConfig bounds a configuration file.
const maxConfig = 1 << 20

// setting is one key of a configuration file, with the line it stands on (0: not found).
type setting struct {
	key    string
	line   int
	values []string
	list   bool
}

// applyConfigFile sets the flags that the file has keys for and the command line has not set.
func applyConfigFile(path string, flags *pflag.FlagSet, known func(string) bool) error {
	what := fmt.Sprintf("read config %q", path)
	file, err := os.Open(path)
	if err != nil {
		return &api.Error{Code: api.CodeUsage, What: what, Why: reason(err), Err: err}
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxConfig+1))
	if err != nil {
		return &api.Error{Code: api.CodeFailed, What: what, Why: reason(err), Err: err}
	}
	settings, err := parseConfig(text)
	if err == nil {
		err = applyConfig(settings, flags, known)
	}
	if err != nil {
		return usageError(what, oneLine(err.Error()), "the keys are the flags of meshd up: see meshd up --help")
	}
	return nil
}

// parseConfig reads the file's keys in the order of their names.
func parseConfig(text []byte) ([]setting, error) {
	if len(text) > maxConfig {
		return nil, fmt.Errorf("it has more than %d bytes", maxConfig)
	}
	var raw map[string]any
	if err := toml.Unmarshal(text, &raw); err != nil {
		if e, ok := errors.AsType[toml.ParseError](err); ok {
			return nil, fmt.Errorf("line %d: %s", e.Position.Line, parseMessage(e))
		}
		return nil, err
	}
	settings := make([]setting, 0, len(raw))
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		s := setting{key: key, line: keyLine(text, key)}
		var err error
		if s.values, s.list, err = flagValues(raw[key]); err != nil {
			return nil, fmt.Errorf("line %d: key %q: %w", s.line, key, err)
		}
		settings = append(settings, s)
	}
	return settings, nil
}

// parseMessage is what the parser says, without its own words on where.
func parseMessage(e toml.ParseError) string {
	if e.Message != "" {
		return e.Message
	}
	_, msg, found := strings.Cut(e.Error(), ": ")
	if !found {
		return e.Error()
	}
	return msg
}

// flagValues turns a value into what a flag's Set takes, one for each element of an array.
func flagValues(v any) (values []string, list bool, err error) {
	if array, ok := v.([]any); ok {
		for _, e := range array {
			s, err := flagValue(e)
			if err != nil {
				return nil, true, err
			}
			values = append(values, s)
		}
		return values, true, nil
	}
	s, err := flagValue(v)
	return []string{s}, false, err
}

func flagValue(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), nil
	case map[string]any, []map[string]any:
		return "", errors.New("it is a table, and no flag is")
	default:
		return "", fmt.Errorf("no flag takes a value like %v", v)
	}
}

// applyConfig sets flags from settings. Keys that no command has are an error; those of other commands are passed over.
func applyConfig(settings []setting, flags *pflag.FlagSet, known func(string) bool) error {
	for _, s := range settings {
		if !known(s.key) {
			return fmt.Errorf("line %d: unknown key %q", s.line, s.key)
		}
		f := flags.Lookup(s.key)
		if f == nil || f.Changed {
			continue
		}
		if _, isSlice := f.Value.(pflag.SliceValue); s.list && !isSlice {
			return fmt.Errorf("line %d: key %q: it is a list, and --%s takes one value", s.line, s.key, s.key)
		}
		for _, v := range s.values {
			if err := flags.Set(s.key, v); err != nil {
				return fmt.Errorf("line %d: key %q: %w", s.line, s.key, setReason(err))
			}
		}
	}
	return nil
}

// setReason is why a flag does not take a value, without the words around it that speak of a command line.
func setReason(err error) error {
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return fmt.Errorf("%q is not of the right kind (%s)", e.GetValue(), e.GetFlag().Value.Type())
	}
	return err
}

// keyLine finds the line on which a key of the top level is set: the decoder does not tell.
func keyLine(text []byte, key string) int {
	for i, line := range bytes.Split(text, []byte("\n")) {
		s := strings.TrimSpace(string(line))
		s = strings.TrimLeft(s, "[ \t")
		for _, form := range []string{key, strconv.Quote(key), "'" + key + "'"} {
			rest, ok := strings.CutPrefix(s, form)
			if !ok {
				continue
			}
			if rest = strings.TrimLeft(rest, " \t"); rest != "" && strings.ContainsRune("=.]", rune(rest[0])) {
				return i + 1
			}
		}
	}
	return 0
}
