package smb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/guise-project/guise/internal/machines"
	"github.com/guise-project/guise/internal/machinestest"
)

// Tests whose names begin with TestInside run on the first of some machines, where TestOnMachines starts this binary again. What they
// need done to the machines they ask the first process for.

const inside = "GUISE_SMB_TEST_INSIDE"

var people = []machines.Account{
	{Name: "alice", UID: 61001, GID: 61001, Password: "of-alice"},
	{Name: "bob", UID: 61002, GID: 61002, Password: "of-bob"},
	{Name: "mallory", UID: 61003, GID: 61003},
}

// needInside skips the test unless it runs on a machine of TestOnMachines.
func needInside(t *testing.T) {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Skip("runs as a part of TestOnMachines")
	}
}

func TestOnMachines(t *testing.T) {
	if os.Getenv(inside) != "" {
		t.Skip("is what runs this")
	}
	machinestest.Need(t)
	for _, test := range []struct {
		name, run     string
		sign, encrypt bool
		extra         map[string]string
	}{
		{name: "plain", run: "^TestInside"},
		{name: "sign", run: "^TestInside(Kerberos|Password|Echo|Messages)$", sign: true},
		{name: "encrypt", run: "^TestInside(Kerberos|Password|Echo|Messages)$", encrypt: true},
		{name: "guests", run: "^TestGuest$", extra: map[string]string{"map to guest": "bad user", "guest account": "nobody", "restrict anonymous": "0"}},
		{name: "unencrypted", run: "^TestNoEncryption$", extra: map[string]string{"server smb encrypt": "off"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			runOnMachines(t, test.run, &machines.Config{Machines: 2, Accounts: people, Sign: test.sign, Encrypt: test.encrypt, Extra: test.extra})
		})
	}
}

func runOnMachines(t *testing.T, run string, c *machines.Config) {
	n, err := machines.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	client, server := n.Machines[0], n.Machines[1]
	program, err := client.Install("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	daemon := server.Command(ctx, program, server.NP, server.Dir)
	daemon.Env = append(daemon.Env, role+"=serve")
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = daemon.Wait()
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the daemon says %q, %v", line, err)
	}

	orders, err := net.Listen("unix", filepath.Join(n.Dir, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer orders.Close()
	go takeOrders(ctx, orders, n)

	// The status of the race detector's is as good as another.
	args := []string{"-test.run=" + run, "-test.timeout=4m"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	if only := os.Getenv("GUISE_SMB_TEST_ONLY"); only != "" {
		args[0] = "-test.run=" + only
	}
	cmd := client.Command(ctx, program, args...)
	cmd.Env = append(cmd.Env, inside+"="+n.Dir, "SERVER="+server.Host, "SERVER_ADDRESS="+server.Address.String(), "SERVER_DIR="+server.Dir, "SERVER_LOG="+server.SambaLog())
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("on %s: %v\n%s", client.Name, err, text)
	} else {
		t.Logf("%s", text)
	}
}

// takeOrders does what the tests inside ask for: one line each, which is answered by one.
func takeOrders(ctx context.Context, l net.Listener, n *machines.Network) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			line, _ := bufio.NewReader(c).ReadString('\n')
			err := obey(ctx, n, strings.Fields(line))
			fmt.Fprintf(c, "%v\n", err)
		}()
	}
}

func obey(ctx context.Context, n *machines.Network, words []string) error {
	client, server := n.Machines[0], n.Machines[1]
	switch strings.Join(words[:min(2, len(words))], " ") {
	case "login alice", "login bob":
		d, err := time.ParseDuration(words[2])
		if err != nil {
			return err
		}
		return client.Login(ctx, words[1], d)
	case "logout alice", "logout bob":
		return client.Logout(words[1])
	case "link up":
		return server.SetLink(true)
	case "link down":
		return server.SetLink(false)
	case "samba stop":
		return server.StopSamba()
	case "samba start":
		return server.StartSamba(ctx)
	case "kdc stop":
		return n.StopKDC()
	case "kdc start":
		return n.StartKDC(ctx)
	case "kdc skew":
		d, err := time.ParseDuration(words[2])
		if err != nil {
			return err
		}
		return n.SkewKDC(ctx, d)
	case "on server":
		out, err := server.Command(ctx, words[2], words[3:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %q", err, out)
		}
		return nil
	}
	return fmt.Errorf("what is %q?", words)
}

// order has the first process do something to the machines.
func order(t *testing.T, format string, args ...any) {
	t.Helper()
	if err := tryOrder(format, args...); err != nil {
		t.Fatalf(format+": %v", append(args, err)...)
	}
}

func tryOrder(format string, args ...any) error {
	c, err := net.Dial("unix", filepath.Join(os.Getenv(inside), "orders"))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, format+"\n", args...); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && line != "<nil>\n" {
		err = errors.New(strings.TrimSpace(line))
	}
	return err
}
