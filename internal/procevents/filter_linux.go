package procevents

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// idChanges is a socket filter for the id changes of a process and for the answer to one request. Everybody in the group gets
// all answers, so that the others' have to be told from ours.
func idChanges(process, answer uint32) []unix.SockFilter {
	return []unix.SockFilter{
		load(offsetWhat),
		equal(eventNone, 0, 2),
		load(offsetAnswer),
		equal(answer, 4, 5),
		equal(eventUID, 1, 0),
		equal(eventGID, 0, 3),
		load(offsetProcess),
		equal(process, 0, 1),
		end(accept),
		end(drop),
	}
}

// idChangesOf is a socket filter for the id changes of some threads of a process, at most [MostThreads].
func idChangesOf(process uint32, threads []int32) []unix.SockFilter {
	filter := []unix.SockFilter{
		load(offsetWhat),
		equal(eventUID, 1, 0),
		equal(eventGID, 0, 1),
		load(offsetProcess),
	}
	n := uint8(len(threads))
	filter[2].Jf = 3 + n // to drop
	filter = append(filter, equal(process, 0, 1+n), load(offsetThread))
	for i, thread := range threads {
		filter = append(filter, equal(uint32(thread), n-uint8(i), 0))
	}
	return append(filter, end(drop), end(accept))
}

// names is a socket filter for the renaming of a thread.
func names(process, thread uint32) []unix.SockFilter {
	return []unix.SockFilter{
		load(offsetWhat),
		equal(eventName, 0, 5),
		load(offsetProcess),
		equal(process, 0, 3),
		load(offsetThread),
		equal(thread, 0, 1),
		end(accept),
		end(drop),
	}
}

// How many bytes of a message go to the socket.
const (
	drop   = 0
	accept = 1<<32 - 1
)

// load drops the message if it ends before the word.
func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

// equal compares the loaded word with k. The filter loads words as big-endian, and the kernel has written this machine's.
func equal(k uint32, then, otherwise uint8) unix.SockFilter {
	var word [4]byte
	binary.NativeEndian.PutUint32(word[:], k)
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: then, Jf: otherwise, K: binary.BigEndian.Uint32(word[:])}
}

func end(bytes uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: bytes}
}

func attach(fd int, program []unix.SockFilter) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: unsafe.SliceData(program)})
}
