package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/guise-project/guise"
)

// pipeReport is what guise ls shows of a pipe.
type pipeReport struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	Network bool   `json:"network"`           // it is Samba's
	Server  life   `json:"server"`            // whether it has one
	Kind    string `json:"kind,omitempty"`    // bytes or messages, "" if that can't be seen
	Waiting *int   `json:"waiting,omitempty"` // clients that wait to be accepted
	Watched bool   `json:"watched"`           // its server lets itself be watched
	Mode    string `json:"mode"`
	UID     uint32 `json:"uid"`
	GID     uint32 `json:"gid"`
	file    fs.FileInfo
}

// life says whether a socket has a server.
type life string

const (
	living  life = "live"
	dead    life = "dead"
	unknown life = "unknown" // this user can't see it
)

func newLsCommand() *cobra.Command {
	asJSON := false
	command := &cobra.Command{
		Use:   "ls",
		Short: "Show this machine's pipes and which have a live server",
		Long: `Shows the pipes that can be called by name: those in /run/guise/pipe and in $XDG_RUNTIME_DIR/guise/pipe, or in GUISE_DIR if that is set;
and the pipes of Samba's directory (/run/samba/ncalrpc/np), which clients of other machines open, if this user may look
there. Pipes that are called by their path are not found.

No server notices it: nothing connects to the pipes.

Columns:
  NAME     as it is called; in Samba's directory as other machines call it
  SERVER   live, dead (a server ended and left its socket behind; the next one replaces it) or unknown (this user may neither write to the
           socket nor see it listening)
  KIND     bytes or messages; - if it can't be seen
  WAITING  clients that have connected and are not accepted yet; - if it can't be seen
  WATCH    yes if its server lets root and its own user watch it
  MODE     who may connect: the write bits of owner, group and others
  OWNER    the socket's user and group
  PATH     the socket's

KIND and WAITING can be seen of servers in the same network namespace.

Exit status:
  0  all pipes were shown, and be it none
  1  a directory could not be read
  2  the command line is wrong`,
		Example: `  guise ls
  guise ls --json | jq -r '.[] | select(.server == "dead").path'`,
		Args: usage(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			pipes, err := listPipes()
			out := command.OutOrStdout()
			if asJSON {
				if pipes == nil {
					pipes = []*pipeReport{} // not null
				}
				return errors.Join(err, printJSON(out, pipes))
			}
			return errors.Join(err, printPipes(out, pipes))
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return command
}

// place is a directory with pipes.
type place struct {
	dir     string
	network bool
}

// pipePlaces returns where pipes are called by name.
func pipePlaces() []place {
	samba := place{guise.SambaDirectory, true}
	if dir := os.Getenv("GUISE_DIR"); dir != "" {
		return []place{{dir, false}, samba}
	}
	places := []place{{"/run/guise/pipe", false}}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		info, err := os.Stat(dir)
		if err == nil && int(info.Sys().(*syscall.Stat_t).Uid) == os.Geteuid() { // others' do not count
			places = append(places, place{filepath.Join(dir, "guise", "pipe"), false})
		}
	}
	return append(places, samba)
}

// listPipes returns what there is, and an error for what should have been there to see.
func listPipes() ([]*pipeReport, error) {
	var pipes []*pipeReport
	var errs []error
	for _, p := range pipePlaces() {
		found, err := p.pipes()
		pipes = append(pipes, found...)
		switch {
		case errors.Is(err, fs.ErrNotExist), p.network && errors.Is(err, fs.ErrPermission):
		default:
			errs = append(errs, err)
		}
	}
	lookAlive(pipes)
	return pipes, errors.Join(errs...)
}

func (p place) pipes() ([]*pipeReport, error) {
	entries, err := os.ReadDir(p.dir)
	var pipes []*pipeReport
	for _, e := range entries {
		if !callable(e.Name()) { // such as a lock or a watch socket, which have a ~ in it
			continue
		}
		path := filepath.Join(p.dir, e.Name())
		info, err := os.Stat(path) // in Samba's directory there may be links
		if err != nil || info.Mode().Type() != fs.ModeSocket {
			continue // it is gone, or none
		}
		stat := info.Sys().(*syscall.Stat_t)
		pipes = append(pipes, &pipeReport{
			Name: e.Name(), Path: path, Network: p.network,
			Mode: fmt.Sprintf("%04o", info.Mode().Perm()), UID: stat.Uid, GID: stat.Gid, file: info,
		})
	}
	return pipes, err
}

// callable reports whether a file's name can be that of a pipe, which is folded to lower case.
func callable(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || strings.ContainsRune("._-", r))
	})
}

func printPipes(out io.Writer, pipes []*pipeReport) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSERVER\tKIND\tWAITING\tWATCH\tMODE\tOWNER\tPATH")
	for _, p := range pipes {
		name, kind, waiting, watched := p.Name, p.Kind, "-", "no"
		if p.Network {
			name = `\\HOST\pipe\` + name
		}
		if kind == "" {
			kind = "-"
		}
		if p.Waiting != nil {
			waiting = fmt.Sprint(*p.Waiting)
		}
		if p.Watched {
			watched = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s:%s\t%s\n",
			name, p.Server, kind, waiting, watched, p.Mode, userText(p.UID), groupText(p.GID), printable(p.Path))
	}
	return t.Flush()
}
