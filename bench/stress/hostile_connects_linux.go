package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// connectFloods are of clients that connect and hardly say anything.
var connectFloods = []attack{
	{"connects 400 times and says nothing", func(h *hostileOne) error {
		var open []int
		defer func() { closeAll(open...) }()
		h.both(func(path string) {
			for range 200 {
				open = append(open, openSocket(path))
			}
		})
		time.Sleep(time.Second)
		return nil
	}},
}

var inAndOut = []attack{
	{"connects and closes", func(h *hostileOne) error {
		h.both(func(path string) { unix.Close(openSocket(path)) })
		return nil
	}},
	{"sends a preface's byte alone", func(h *hostileOne) error {
		h.both(func(path string) {
			fd := openSocket(path)
			defer unix.Close(fd)
			_ = send(fd, "G")
		})
		return nil
	}},
	{"sends a preface without a hello", func(h *hostileOne) error {
		h.both(func(path string) {
			c := rawConnect(path)
			defer c.close()
			_ = c.preface("G", c.far)
		})
		return nil
	}},
	{"sends garbage", func(h *hostileOne) error {
		h.both(func(path string) {
			fd := openSocket(path)
			defer unix.Close(fd)
			_ = send(fd, "\x00\xff\x1b[2J garbage")
			read(fd)
		})
		return nil
	}},
}
