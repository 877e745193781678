package keys

import (
	"bytes"
	"sync"
)

// memoryLog is a LogStore that fails when told.
type memoryLog struct {
	mu      sync.Mutex
	entries [][]byte
	fail    func(n int) error // before entry n is kept
}

func (l *memoryLog) Append(_ string, entry []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		if err := l.fail(len(l.entries)); err != nil {
			return err
		}
	}
	l.entries = append(l.entries, bytes.Clone(entry))
	return nil
}

func (l *memoryLog) ReadLog(string) ([][]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([][]byte(nil), l.entries...), nil
}
