package machines

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Config says what machines to make.
type Config struct {
	Machines int               // 0 means 3
	Accounts []Account         // on all machines the same
	Sign     bool              // smbd requires that its clients sign
	Encrypt  bool              // smbd requires that its clients encrypt
	Extra    map[string]string // more lines of smb.conf's [global], and others for those that this package writes
	Log      io.Writer         // progress, for people; nil for none
}

// Network is some machines that reach one another. Programs may be run in them from several goroutines at once; what starts and stops a
// machine's smbd, the KDC or the network is for one at a time.
type Network struct {
	Machines []*Machine
	Dir      string // the directory that all machines and this one have in common

	config *Config
	keeper *holder
	cables *holder // of the switch
	kdc    *service
	skew   time.Duration
	log    sync.Mutex
	copies copies
	closed bool
}

// subnet is the machines': one for documentation, that no network has.
var subnet = netip.AddrFrom4([4]byte{192, 0, 2, 0})

// Start makes machines. When it returns, every smbd answers and the KDC gives tickets. ctx is for starting alone.
func Start(ctx context.Context, c *Config) (*Network, error) {
	config := *c
	if config.Machines == 0 {
		config.Machines = 3
	}
	if config.Machines < 0 || config.Machines > 200 {
		return nil, fmt.Errorf("can't make %d machines: want 1 to 200", config.Machines)
	}
	if err := checkAccounts(config.Accounts); err != nil {
		return nil, err
	}
	if err := Missing(); err != nil {
		return nil, err
	}
	n := &Network{config: &config}
	if err := n.start(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Network) start(ctx context.Context) (err error) {
	begun := time.Now()
	if n.Dir, err = os.MkdirTemp("", "guise-machines-"); err != nil {
		return fmt.Errorf("making a directory for machines: %w", err)
	}
	if n.Dir, err = filepath.EvalSymlinks(n.Dir); err != nil {
		return err
	}
	if err := os.Chmod(n.Dir, 0o755); err != nil {
		return err
	}
	if n.keeper, err = startKeeper(n.Dir); err != nil {
		return errors.Join(err, os.RemoveAll(n.Dir))
	}
	address := subnet
	for i := range n.config.Machines {
		name := fmt.Sprintf("machine%d", i+1)
		address = address.Next()
		n.Machines = append(n.Machines, &Machine{
			Name: name, Host: name + "." + Domain, Address: address, NP: npDir, Dir: filepath.Join(n.Dir, name), network: n,
		})
	}
	n.logf("making %d machines in %s", len(n.Machines), n.Dir)
	if err := n.makeMachines(ctx); err != nil {
		return err
	}
	n.logf("machines are connected after %v", since(begun))

	// Accounts of Samba's and the KDC's database need nothing of each other.
	database := make(chan error, 1)
	go func() { database <- n.makeKDC(ctx) }()
	err = each(n.Machines, func(m *Machine) error { return m.prepareSamba(ctx) })
	if err := errors.Join(err, <-database); err != nil {
		return err
	}
	n.logf("accounts are made after %v", since(begun))
	kdc := make(chan error, 1)
	go func() { kdc <- n.StartKDC(ctx) }()
	err = each(n.Machines, func(m *Machine) error { return m.StartSamba(ctx) })
	if err := errors.Join(err, <-kdc); err != nil {
		return err
	}
	n.logf("ready after %v", since(begun))
	return nil
}

func (n *Network) makeMachines(ctx context.Context) error {
	cables := make(chan error, 1)
	go func() {
		var err error
		n.cables, err = startSwitch()
		cables <- err
	}()
	err := each(n.Machines, func(m *Machine) error { return m.make() })
	if err := errors.Join(err, <-cables); err != nil {
		return err
	}
	if err := n.connect(ctx); err != nil {
		return err
	}
	return each(n.Machines, func(m *Machine) error { return errors.Join(m.connect(ctx), m.writeEtc()) })
}

// Close takes everything down: processes, namespaces and files. The error says what could not be. Programs that were
// started in the machines and still run are killed; their Wait is the caller's.
func (n *Network) Close() error {
	if n.closed {
		return nil
	}
	n.closed = true
	err := each(n.Machines, func(m *Machine) error {
		err := m.holder.end()
		m.samba.gone()
		return err
	})
	n.kdc.gone()
	err = errors.Join(err, n.cables.end(), n.keeper.end())
	if _, gone := os.Lstat(n.Dir); n.Dir != "" && !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, fmt.Errorf("directory %s is left: remove it", n.Dir))
	}
	return err
}

// account returns one of the machines' accounts.
func (n *Network) account(name string) (*Account, error) {
	for i := range n.config.Accounts {
		if a := &n.config.Accounts[i]; a.Name == name {
			return a, nil
		}
	}
	return nil, fmt.Errorf("the machines have no account %q: name it in Config.Accounts", name)
}

func (n *Network) logf(format string, args ...any) {
	if n.config.Log != nil {
		n.log.Lock()
		defer n.log.Unlock()
		fmt.Fprintf(n.config.Log, "machines: "+format+"\n", args...)
	}
}

func since(begun time.Time) time.Duration { return time.Since(begun).Round(time.Millisecond) }

// each does something for all machines at once and waits for all.
func each(all []*Machine, f func(*Machine) error) error {
	errs := make([]error, len(all))
	var wait sync.WaitGroup
	for i, m := range all {
		wait.Add(1)
		go func() {
			defer wait.Done()
			errs[i] = f(m)
		}()
	}
	wait.Wait()
	return errors.Join(errs...)
}
