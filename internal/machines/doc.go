// Package machines makes several machines out of this one, so that tests and demonstrations see what happens between machines:
// each has its own network, mount, UTS, IPC and process namespaces, an address, accounts, and an smbd that carries its
// pipes; the first has a Kerberos KDC too.
//
//	n, err := machines.Start(ctx, &machines.Config{Accounts: []machines.Account{
//		{Name: "alice", UID: 61001, GID: 61001, Password: "secret"},
//	}})
//	...
//	defer n.Close()
//	first, third := n.Machines[0], n.Machines[2]
//	err = first.Login(ctx, "alice", time.Hour)
//	out, err := first.CommandAs(ctx, "alice", "smbclient", "--use-kerberos=required", "//"+third.Host+"/IPC$", "-c", "exit").CombinedOutput()
//
// It takes root and Debian's programs; [Missing] says what is not there. Nothing of this machine is changed: no account, no
// interface and no mount is made outside the machines. The only files outside are in one temporary directory, [Network.Dir].
// All of it goes with the process that started it, also when that process is killed.
//
// # What a machine has of its own
//
// /etc is a copy of this machine's with other accounts, hosts, krb5.conf, nsswitch.conf and smb.conf. /tmp, /run, /home, /dev/shm,
// /var/tmp and Samba's and the KDC's directories are empty at first and go with the machine. All else is this machine's file
// system: a program that lies there can be run in a machine under the same path. One that lies in this machine's /tmp or
// /home, such as a test binary, is brought in by [Machine.Install].
//
// Clocks are shared; [Network.SkewKDC] runs the KDC with a clock that is off.
package machines
