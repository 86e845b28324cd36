package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/smb"
)

// networkCall is what the command line has for a pipe on another machine.
type networkCall struct {
	user         string
	passwordFile string
	principal    string
	address      string
	message      bool
	encrypt      bool
}

func (n *networkCall) add(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&n.user, "user", "", `another machine: log on as [DOMAIN\]USER with a password (unstated: with Kerberos)`)
	flags.StringVar(&n.passwordFile, "password-file", "", "another machine: the file that has the password of --user in its first line (unstated: the terminal is asked)")
	flags.StringVar(&n.principal, "principal", "", "another machine: the server's Kerberos principal (unstated: cifs/HOST)")
	flags.StringVar(&n.address, "address", "", "another machine: the address and port to connect to (unstated: HOST:445)")
	flags.BoolVar(&n.message, "message", false, "another machine: the pipe is one of messages, which the network does not tell")
	flags.BoolVar(&n.encrypt, "encrypt", false, "another machine: have all of it encrypted, or fail")
}

// onNetwork reports whether name is that of a pipe on another machine.
func onNetwork(name string) bool {
	if rest, ok := strings.CutPrefix(name, `\\`); ok {
		return !strings.HasPrefix(rest, `.\`)
	}
	rest, ok := strings.CutPrefix(name, "//")
	parts := strings.Split(rest, "/")
	return ok && len(parts) == 3 && strings.EqualFold(parts[1], "pipe") && parts[0] != ""
}

// check returns an error for flags that don't go together.
func (n *networkCall) check(name string, c *call) error {
	if !onNetwork(name) {
		if *n != (networkCall{}) {
			return errors.New(`--user, --password-file, --principal, --address, --message and --encrypt are for pipes on other machines, \\HOST\pipe\NAME`)
		}
		return nil
	}
	switch {
	case n.passwordFile != "" && n.user == "":
		return errors.New("--password-file takes --user")
	case n.principal != "" && n.user != "":
		return errors.New("--principal is for Kerberos, and --user for a password")
	case c.checkUID:
		return errors.New("--server-uid is for servers of this machine; another one is told by its Kerberos principal")
	}
	return nil
}

func (n *networkCall) dial(ctx context.Context, name string, qos *guise.QoS) (*guise.Conn, error) {
	d := smb.Dialer{QoS: qos, Message: n.message, Principal: n.principal, Address: n.address, RequireEncryption: n.encrypt}
	if n.user != "" {
		secret, err := n.password()
		if err != nil {
			return nil, err
		}
		d.Password = &smb.Password{User: n.user, Secret: secret}
		if domain, user, ok := strings.Cut(n.user, `\`); ok {
			d.Password.Domain, d.Password.User = domain, user
		}
	}
	return d.Dial(ctx, name)
}

// longestPassword is in bytes.
const longestPassword = 1024

func (n *networkCall) password() (string, error) {
	if n.passwordFile == "" {
		return askPassword(fmt.Sprintf("Password of %s: ", n.user))
	}
	f, err := os.Open(n.passwordFile)
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	defer f.Close()
	return firstLine(f, "the password in "+n.passwordFile)
}
