package main

import (
	"fmt"
	"io/fs"
	"strconv"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/announce"
	"github.com/guise-project/guise/token"
)

// levelFlag is a flag's impersonation level.
type levelFlag guise.Level

func (f *levelFlag) String() string { return nameUnlessZero(guise.Level(*f)) }
func (f *levelFlag) Type() string   { return "LEVEL" }

func (f *levelFlag) Set(s string) error {
	l, err := token.ParseLevel(s)
	*f = levelFlag(l)
	return err
}

// trackingFlag is a flag's kind of tracking.
type trackingFlag guise.Tracking

func (f *trackingFlag) String() string { return nameUnlessZero(guise.Tracking(*f)) }
func (f *trackingFlag) Type() string   { return "TRACKING" }

func (f *trackingFlag) Set(s string) error {
	t, err := announce.ParseTracking(s)
	*f = trackingFlag(t)
	return err
}

// nameUnlessZero keeps "unstated" out of the help, where it would look like a default to choose.
func nameUnlessZero[T interface {
	comparable
	fmt.Stringer
}](v T) string {
	var zero T
	if v == zero {
		return ""
	}
	return v.String()
}

// modeFlag is a flag's permission bits, in octal.
type modeFlag fs.FileMode

func (f *modeFlag) String() string {
	if *f == 0 {
		return ""
	}
	return fmt.Sprintf("%04o", uint32(*f))
}

func (f *modeFlag) Type() string { return "MODE" }

func (f *modeFlag) Set(s string) error {
	mode, err := strconv.ParseUint(s, 8, 32)
	if err != nil || mode == 0 || mode > 0o777 {
		return fmt.Errorf("%q is no mode of a socket; they are octal, such as 0660", s)
	}
	*f = modeFlag(mode)
	return nil
}
