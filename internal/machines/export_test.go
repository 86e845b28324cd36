package machines

import "net"

// Holders returns the processes that hold a network, and those that the machines and the switch are held by.
func (n *Network) Holders() []int {
	pids := []int{n.keeper.pid, n.cables.pid}
	for _, m := range n.Machines {
		pids = append(pids, m.holder.cmd.Process.Pid, m.holder.pid)
	}
	return pids
}

// Negotiate begins to talk SMB, and returns whether the other side requires signing.
func Negotiate(c net.Conn) (signs bool, err error) { return negotiate(c) }

// CheckAccounts is checkAccounts.
func CheckAccounts(accounts []Account) error { return checkAccounts(accounts) }

// The files that machines get.
func PasswdFile(accounts []Account) string         { return passwdFile(accounts) }
func GroupFile(accounts []Account) (string, error) { return groupFile(accounts) }
