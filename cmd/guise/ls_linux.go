package main

import (
	"encoding/binary"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/socketfile"
)

// watchSuffix is what a pipe's watch socket has at the end of its path.
const watchSuffix = "~watch"

// lookAlive finds out of pipes what is behind them.
func lookAlive(pipes []*pipeReport) {
	listening, _ := listeners() // without it less can be seen
	for _, p := range pipes {
		p.Server = lifeOf(p.Path)
		stat := p.file.Sys().(*syscall.Stat_t)
		if l, seen := listening[fileOf(stat.Dev, stat.Ino)]; seen {
			p.Server = living
			p.Waiting = &l.waiting
			switch l.kind {
			case unix.SOCK_STREAM:
				p.Kind = modeName(false)
			case unix.SOCK_SEQPACKET:
				p.Kind = modeName(true)
			}
		}
		p.Watched = p.Server == living && watchable(p.Path+watchSuffix, listening)
	}
}

func watchable(path string, listening map[socketFile]listener) bool {
	info, err := os.Lstat(path)
	if err != nil {
		return false
	}
	stat := info.Sys().(*syscall.Stat_t)
	_, seen := listening[fileOf(stat.Dev, stat.Ino)]
	return seen || lifeOf(path) != dead
}

// lifeOf says whether a process has the socket at path, whose server sees nothing of it.
func lifeOf(path string) life {
	switch is, _ := socketfile.LifeOf(path); is {
	case socketfile.Live:
		return living
	case socketfile.Dead:
		return dead
	}
	return unknown
}

// socketFile is a socket's file as sock_diag(7) tells it: with the lower half of its inode's number.
type socketFile struct{ major, minor, inode uint32 }

func fileOf(dev, inode uint64) socketFile {
	return socketFile{unix.Major(dev), unix.Minor(dev), uint32(inode)}
}

// listener is a listening Unix socket.
type listener struct {
	kind    uint8
	waiting int
}

// What linux/unix_diag.h says.
const (
	sockDiagByFamily = 20
	diagShowVFS      = 0x2
	diagShowQueues   = 0x10
	diagVFS          = 1
	diagQueues       = 4
	stateListening   = 10 // TCP_LISTEN
	diagMessage      = 16 // bytes of struct unix_diag_msg
)

type diagRequest struct {
	family, protocol uint8
	_                uint16
	states           uint32
	inode            uint32
	show             uint32
	cookie           [2]uint32
}

// listeners returns this network namespace's listening Unix sockets that have a file.
func listeners() (map[socketFile]listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var request struct {
		unix.NlMsghdr
		diagRequest
	}
	request.Len = uint32(unsafe.Sizeof(request))
	request.Type = sockDiagByFamily
	request.Flags = unix.NLM_F_REQUEST | unix.NLM_F_DUMP
	request.family = unix.AF_UNIX
	request.states = 1 << stateListening
	request.show = diagShowVFS | diagShowQueues
	b := unsafe.Slice((*byte)(unsafe.Pointer(&request)), unsafe.Sizeof(request))
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	found := make(map[socketFile]listener)
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return found, err
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return found, err
		}
		for i := range messages {
			switch messages[i].Header.Type {
			case unix.NLMSG_DONE:
				return found, nil
			case unix.NLMSG_ERROR:
				return found, unix.EOPNOTSUPP
			case sockDiagByFamily:
				takeListener(found, messages[i].Data)
			}
		}
	}
}

// takeListener understands a struct unix_diag_msg and what follows it.
func takeListener(found map[socketFile]listener, data []byte) {
	if len(data) < diagMessage {
		return
	}
	l := listener{kind: data[1]}
	var file socketFile
	hasFile := false
	for rest := data[diagMessage:]; len(rest) >= unix.SizeofRtAttr; {
		length := int(binary.NativeEndian.Uint16(rest))
		if length < unix.SizeofRtAttr || length > len(rest) {
			break
		}
		value := rest[unix.SizeofRtAttr:length]
		switch binary.NativeEndian.Uint16(rest[2:]) {
		case diagVFS: // u32 inode, u32 device as the kernel has it
			if len(value) >= 8 {
				device := binary.NativeEndian.Uint32(value[4:])
				file = socketFile{device >> 20, device & (1<<20 - 1), binary.NativeEndian.Uint32(value)}
				hasFile = true
			}
		case diagQueues: // u32 waiting, u32 backlog
			if len(value) >= 4 {
				l.waiting = int(binary.NativeEndian.Uint32(value))
			}
		}
		rest = rest[min((length+3)&^3, len(rest)):]
	}
	if hasFile {
		found[file] = l
	}
}
