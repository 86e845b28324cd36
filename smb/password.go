package smb

import (
	"context"
	"fmt"
	"log/slog"
	"os/user"
	"strconv"
	"strings"

	"github.com/cloudsoda/go-smb2"

	"github.com/guise-project/guise/token"
)

// Password is an account of the server's, for a logon with NTLMv2. It prints without the secret.
type Password struct {
	// Domain is the account's domain; "" is what the server says.
	Domain string
	User   string
	Secret string
}

// String returns DOMAIN\USER.
func (p Password) String() string {
	if p.Domain == "" {
		return p.User
	}
	return p.Domain + `\` + p.User
}

// GoString is String.
func (p Password) GoString() string { return fmt.Sprintf("smb.Password(%q)", p.String()) }

// LogValue is String.
func (p Password) LogValue() slog.Value { return slog.StringValue(p.String()) }

// MarshalText is String.
func (p Password) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// check returns an error for what can't be an account, which NTLM would take for anonymous.
func (p Password) check() error {
	if p.User == "" || p.Secret == "" {
		return fmt.Errorf("%w: a password logon needs a user and a password", ErrLogon)
	}
	if strings.ContainsRune(p.User+p.Domain+p.Secret, 0) {
		return fmt.Errorf("%w: a user or a password can't have a NUL byte in it", ErrLogon)
	}
	return nil
}

// mayBeUsed returns an error if the password is not the caller's to use. The system's name service may take its time.
func (p Password) mayBeUsed(ctx context.Context, who caller) error {
	if who.worn == nil {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- p.checkClients(who.worn) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("looking up account %s: %w", p.User, ctx.Err())
	}
}

// checkClients returns an error if the password is not for the account of a scope's client, as far as this machine knows.
func (p Password) checkClients(worn *token.Token) error {
	u, err := user.Lookup(p.User)
	if err != nil {
		return fmt.Errorf("%w: %s is no account of this machine (%w); dial outside of the scope to call as %s", ErrNotClients, p.User, err, p)
	}
	if u.Uid != strconv.FormatUint(uint64(worn.UID()), 10) {
		return fmt.Errorf("%w: %s is uid %s, and the scope's client is uid %d; dial outside of the scope to call as %s", ErrNotClients, p.User, u.Uid, worn.UID(), p)
	}
	return nil
}

func (p Password) initiator(t target) smb2.Initiator {
	return &smb2.NTLMInitiator{User: p.User, Password: p.Secret, Domain: p.Domain, TargetSPN: "cifs/" + t.host}
}
