package main

import (
	"cmp"
	"encoding/hex"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// store keeps messages as files of a directory: one for each user, one in it for each message. A service would use its database.
type store string

func (s store) path(user, id string) string {
	return filepath.Join(string(s), hex.EncodeToString([]byte(user)), hex.EncodeToString([]byte(id)))
}

// put may be called again for the same message.
func (s store) put(user, id string, text []byte) error {
	path := s.path(user, id)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (s store) drop(user, id string) { _ = os.Remove(s.path(user, id)) }

// all yields a user's messages, the oldest first.
func (s store) all(user string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		files, _ := filepath.Glob(s.path(user, "") + "/*")
		age := make(map[string]time.Time, len(files))
		for _, file := range files {
			if info, err := os.Stat(file); err == nil {
				age[file] = info.ModTime()
			}
		}
		slices.SortFunc(files, func(a, b string) int { return cmp.Compare(age[a].UnixNano(), age[b].UnixNano()) })
		for _, file := range files {
			id, err := hex.DecodeString(filepath.Base(file)) // fails for one that is being written
			text, unread := os.ReadFile(file)
			if err == nil && unread == nil && !yield(string(id), text) {
				return
			}
		}
	}
}
