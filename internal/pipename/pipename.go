// Package pipename has the rules for pipes' names, which are the same on this machine and between machines.
package pipename

import (
	"errors"
	"fmt"
	"strings"
)

// Longest is how many bytes a name can have.
const Longest = 64

// Fold returns the name as it is compared, in lower case, or why it can't be a pipe's.
func Fold(name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("a pipe needs a name")
	case len(name) > Longest:
		return "", fmt.Errorf("a pipe's name can have %d bytes, this one has %d", Longest, len(name))
	case name == "." || name == "..":
		return "", fmt.Errorf("%q can't be a pipe's name", name)
	}
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._-", c) >= 0) {
			return "", fmt.Errorf("a pipe's name is of letters, digits, '.', '_' and '-'; %q has %q in it", name, c)
		}
	}
	return strings.ToLower(name), nil
}
