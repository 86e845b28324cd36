package npa

import (
	"fmt"
	"math"
)

// Samba's marks are SIDs under S-1-22, its own authority, that name nobody: it has nowhere else to put what they say.
const (
	sambaAuthority = 22
	flagsMark      = 2041152804 // and the flags
	encryptionMark = 1397571891 // and the dialect, whether encryption is required, and the cipher
)

// The flags.
const (
	flagNeedIdle   = 1 // Samba's own daemons are to serve nobody else in the same process
	flagWinbindOff = 2 // and are not to ask winbindd
	flagProbeOnly  = 4 // nobody wants the pipe; not before Samba 4.25
	knownFlags     = flagNeedIdle | flagWinbindOff | flagProbeOnly
)

// encryptionRequired is what smbd puts between the dialect and the cipher, always.
const encryptionRequired = 2

// marks is what the marks of a token say.
type marks struct {
	flags      uint32
	dialect    Dialect
	cipher     Cipher
	flagged    int // how many marks of each kind there are
	encryption int
}

// take reports whether id is a mark, and takes it if it is. The problem is what is wrong with it.
func (m *marks) take(id sid) (is bool, problem string) {
	if id.authority != sambaAuthority {
		return false, ""
	}
	switch said := id.sub[1:]; id.sub[0] {
	default:
		return false, ""
	case flagsMark:
		if len(said) != 1 || said[0]&^knownFlags != 0 {
			return true, "Samba's mark of flags has some that are unknown"
		}
		m.flags = said[0]
		m.flagged++
	case encryptionMark:
		if len(said) != 3 || said[0] > math.MaxUint16 || said[1] != encryptionRequired || said[2] > math.MaxUint16 {
			return true, "Samba's mark of encryption is not a dialect, 2 and a cipher"
		}
		m.dialect, m.cipher = Dialect(said[0]), Cipher(said[2])
		m.encryption++
	}
	return true, ""
}

// check returns what is wrong with the marks together. smbd sets its flags since level 7, always and once; it refuses to
// open a pipe if the token already has a mark.
func (m *marks) check(level uint32) (problem string) {
	flagged := 1
	if level == level5 {
		flagged = 0
	}
	switch {
	case m.flagged != flagged:
		return fmt.Sprintf("Samba's mark of flags is there %d times, where %d is expected", m.flagged, flagged)
	case m.encryption > 1:
		return fmt.Sprintf("Samba's mark of encryption is there %d times", m.encryption)
	}
	return ""
}

// encrypted reports whether there is a mark, of an encryption that is known.
func (m *marks) encrypted() bool {
	switch m.dialect {
	case SMB300, SMB302, SMB311:
		return m.cipher >= AES128CCM && m.cipher <= AES256GCM
	}
	return false
}

// Dialect is a version of the SMB protocol by its number on the wire.
type Dialect uint16

// The dialects that have encryption.
const (
	SMB300 Dialect = 0x0300
	SMB302 Dialect = 0x0302
	SMB311 Dialect = 0x0311
)

// String returns the version, as in "3.1.1".
func (d Dialect) String() string {
	switch d {
	case 0:
		return "unknown"
	case SMB300, SMB302, SMB311:
		version := fmt.Sprintf("%d.%d", d>>8, d>>4&15)
		if d&15 != 0 {
			version += fmt.Sprintf(".%d", d&15)
		}
		return version
	}
	return fmt.Sprintf("dialect %#04x", uint16(d))
}

// Cipher is what an SMB connection is encrypted with, by its number on the wire.
type Cipher uint16

// The ciphers of SMB 3.
const (
	AES128CCM Cipher = iota + 1
	AES128GCM
	AES256CCM // since Samba 4.15
	AES256GCM // since Samba 4.15
)

var ciphers = [...]string{"unknown", AES128CCM: "AES-128-CCM", AES128GCM: "AES-128-GCM", AES256CCM: "AES-256-CCM", AES256GCM: "AES-256-GCM"}

// String returns the cipher's name, as in "AES-128-GCM".
func (c Cipher) String() string {
	if int(c) < len(ciphers) {
		return ciphers[c]
	}
	return fmt.Sprintf("cipher %d", uint16(c))
}
