package main

import (
	"errors"

	"github.com/spf13/pflag"

	"github.com/guise-project/guise"
)

// networkFlags say how a pipe is published to Samba, if it is.
type networkFlags struct {
	on        bool
	name, dir string
}

func (f *networkFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&f.on, "network", false, "serve clients of other machines too, by way of Samba")
	flags.StringVar(&f.name, "network-name", "", "the pipe's name on the network (unstated: NAME)")
	flags.StringVar(&f.dir, "network-dir", "", "where smbd looks for pipes (unstated: "+guise.SambaDirectory+")")
}

func (f *networkFlags) check() error {
	if !f.on && (f.name != "" || f.dir != "") {
		return errors.New("--network-name and --network-dir take --network")
	}
	return nil
}

func (f *networkFlags) config() *guise.Network {
	if !f.on {
		return nil
	}
	return &guise.Network{Name: f.name, Dir: f.dir}
}
