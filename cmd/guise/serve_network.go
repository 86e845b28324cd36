package main

import (
	"errors"

	"github.com/spf13/pflag"

	"github.com/guise-project/guise"
)

// networkFlags say how a pipe is published to Samba, if it is.
type networkFlags struct {
	on              bool
	name, dir, path string
}

func (f *networkFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&f.on, "network", false, "serve clients of other machines too, by way of Samba")
	flags.StringVar(&f.name, "network-name", "", "what the pipe is called on the network, a `NAME` (unstated: that of the pipe)")
	flags.StringVar(&f.dir, "network-dir", "", "the `DIR` where smbd looks for pipes (unstated: "+guise.SambaDirectory+")")
	flags.StringVar(&f.path, "network-path", "", "the `PATH` of the socket for smbd, which root links to from there, in the place of one in that directory")
}

func (f *networkFlags) check() error {
	if !f.on && (f.name != "" || f.dir != "" || f.path != "") {
		return errors.New("--network-name, --network-dir and --network-path take --network")
	}
	if f.dir != "" && f.path != "" {
		return errors.New("--network-path has its directory in it already, and --network-dir is another")
	}
	return nil
}

func (f *networkFlags) config() *guise.Network {
	if !f.on {
		return nil
	}
	return &guise.Network{Name: f.name, Dir: f.dir, Path: f.path}
}
