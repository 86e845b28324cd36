package token

import "fmt"

// Level is NT's impersonation level: how far a server may go with its client's identity. The levels bind this library;
// nothing binds a privileged server that does not use it.
type Level uint8

// The levels, lowest first.
const (
	LevelUnstated  Level = iota // nothing was said: Impersonation
	Anonymous                   // the server does not learn who calls
	Identification              // the server may ask who calls, and not act
	Impersonation               // the server may act as the client on this machine
	Delegation                  // as Impersonation here; refused between machines
)

var levelNames = [...]string{"unstated", "anonymous", "identification", "impersonation", "delegation"}

// String returns the level's name in lower case.
func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return fmt.Sprintf("level %d", uint8(l))
}

// ParseLevel returns the level that is called name, as [Level.String] prints it.
func ParseLevel(name string) (Level, error) {
	for l, n := range levelNames {
		if n == name {
			return Level(l), nil
		}
	}
	return 0, fmt.Errorf("%q is no impersonation level; they are anonymous, identification, impersonation and delegation", name)
}

// MarshalText returns the level's name.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (l *Level) UnmarshalText(text []byte) (err error) {
	*l, err = ParseLevel(string(text))
	return err
}
