package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// store keeps messages as files of a directory: one for each user, one in it for each message. A service would use its database.
type store string

// kept is a file's content. Its name is a hash: ids may be longer than a file's name.
type kept struct {
	ID   string
	Text []byte
}

func (s store) dir(user string) string { return filepath.Join(string(s), name(user)) }

func (s store) path(user, id string) string { return filepath.Join(s.dir(user), name(id)+".json") }

func name(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// put may be called again for the same message.
func (s store) put(user, id string, text []byte) error {
	path := s.path(user, id)
	content, err := json.Marshal(kept{id, text})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir(user), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (s store) drop(user, id string) { _ = os.Remove(s.path(user, id)) }

// all yields a user's messages, the oldest first.
func (s store) all(user string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		files, _ := filepath.Glob(s.dir(user) + "/*.json")
		age := make(map[string]time.Time, len(files))
		for _, file := range files {
			if info, err := os.Stat(file); err == nil {
				age[file] = info.ModTime()
			}
		}
		slices.SortFunc(files, func(a, b string) int { return cmp.Compare(age[a].UnixNano(), age[b].UnixNano()) })
		for _, file := range files {
			var m kept
			content, err := os.ReadFile(file)
			if err == nil && json.Unmarshal(content, &m) == nil && !yield(m.ID, m.Text) {
				return
			}
		}
	}
}
