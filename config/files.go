package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	slash "path"
	"path/filepath"
	"slices"
	"time"
)

// A File is one of the files that a config was made of, or would have been.
type File struct {
	// Path is absolute, or relative to the working directory.
	Path string
	// SHA256 is the hash of what was read, in hexadecimal; empty if nothing
	// could be.
	SHA256 string

	// What the file system said when the file had that content.
	size     int64
	modified time.Time
	seen     time.Time
	limit    int64 // of size: a larger one is not read
}

// freshness is how long after a file's time of modification the same time and
// size may hide another content: the clocks of file systems tick slowly.
const freshness = 3 * time.Second

// Changed reports whether the file holds something else now than what was read,
// or can't be read where it could be, or the other way round. It reads the file
// only where its size and time of modification don't tell. What is no regular
// file, such as a pipe, never changes.
func (f *File) Changed() bool {
	info, err := os.Stat(f.Path)
	switch {
	case err != nil || info.IsDir() || info.Size() > f.limit:
		return f.SHA256 != ""
	case !info.Mode().IsRegular():
		return false
	case f.SHA256 != "" && info.Size() != f.size:
		return true
	case f.SHA256 != "" && info.ModTime().Equal(f.modified) && f.seen.Sub(f.modified) > freshness:
		return false
	}
	now := File{Path: f.Path, limit: f.limit}
	file, err := os.Open(f.Path)
	if err == nil {
		defer file.Close()
		hash := sha256.New()
		if _, err = io.Copy(hash, file); err == nil {
			now.read(info, hash.Sum(nil))
		}
	}
	if now.SHA256 != f.SHA256 {
		return true
	}
	*f = now
	return false
}

// read notes what was read of the file, after the file system had said that.
func (f *File) read(info fs.FileInfo, sum []byte) {
	f.SHA256 = hex.EncodeToString(sum)
	f.size, f.modified, f.seen = info.Size(), info.ModTime(), time.Now()
}

// readFile reads a file that the config names and notes it.
func (l *loader) readFile(name string, limit int64) ([]byte, error) {
	f := File{Path: l.file(name), limit: limit}
	info, err := l.regularFile(name, limit)
	var content []byte
	if err == nil {
		if content, err = os.ReadFile(f.Path); err == nil {
			sum := sha256.Sum256(content)
			f.read(info, sum[:])
		} else {
			err = fmt.Errorf("%s: %s", quote(name), reason(err))
		}
	}
	if !l.noted(f.Path) {
		l.files = append(l.files, f)
	}
	return content, err
}

func (l *loader) noted(file string) bool {
	return slices.ContainsFunc(l.files, func(f File) bool { return f.Path == file })
}

// noteRefs notes the files that a schema refers to: those of its folder, named
// relative to it. What can't be read is the schema's problem.
func (l *loader) noteRefs(folder, file string, text []byte) {
	var document any
	if json.Unmarshal(text, &document) != nil {
		return
	}
	for _, ref := range refs(document, nil) {
		u, err := url.Parse(ref)
		if err != nil || u.Scheme != "" || u.Host != "" || u.Path == "" {
			continue
		}
		other := slash.Join(slash.Dir(file), u.Path)
		name := filepath.Join(folder, filepath.FromSlash(other))
		if !filepath.IsLocal(filepath.FromSlash(other)) || l.noted(l.file(name)) {
			continue
		}
		if text, err := l.readFile(name, maxSize); err == nil {
			l.noteRefs(folder, other, text)
		}
	}
}

// refs appends every $ref of a schema.
func refs(value any, found []string) []string {
	switch value := value.(type) {
	case map[string]any:
		if ref, ok := value["$ref"].(string); ok {
			found = append(found, ref)
		}
		for _, member := range value {
			found = refs(member, found)
		}
	case []any:
		for _, element := range value {
			found = refs(element, found)
		}
	}
	return found
}
