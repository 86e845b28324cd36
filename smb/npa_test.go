package smb

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// serveForSamba is the daemon behind smbd that the tests call, on pipes that behave in ways that a guise server does not. It says
// "ready" and serves until it is killed.
func serveForSamba() {
	np, dir := os.Args[1], os.Args[2]
	for name, serve := range map[string]func(*net.UnixConn, []byte){
		"echo":     echoBytes,
		"messages": echoMessages,
		"who":      tellRequest,
		"bye":      answerAndEnd,
		"blocked":  func(c *net.UnixConn, _ []byte) { select {} },
		"total":    func(c *net.UnixConn, _ []byte) { tellTotal(c, dir) },
		"late": func(c *net.UnixConn, _ []byte) {
			time.Sleep(leaving + time.Second)
			tellTotal(c, dir)
		},
		"both": func(c *net.UnixConn, _ []byte) {
			go flood(c, nil)
			tellTotal(c, dir)
		},
		"flood":    flood,
		"backward": afterSilence,
	} {
		l, err := net.Listen("unix", filepath.Join(np, name))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		go acceptForSamba(l.(*net.UnixListener), name == "messages", serve)
	}
	// Daemons that end without an answer, and one that has gone.
	for name, reads := range map[string]int{"refuse": 0, "refuse2": 1 << 16, "stale": -1} {
		l, err := net.Listen("unix", filepath.Join(np, name))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if reads < 0 {
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			l.Close()
			continue
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, reads))
				c.Close()
			}
		}()
	}
	fmt.Println("ready")
	select {}
}

func acceptForSamba(l *net.UnixListener, message bool, serve func(*net.UnixConn, []byte)) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			request, err := shakeHands(c, message)
			if err == nil {
				serve(c, request)
			}
		}()
	}
}

// shakeHands is reference/samba.md's.
func shakeHands(c net.Conn, message bool) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, err
	}
	request := make([]byte, binary.BigEndian.Uint32(length[:]))
	if _, err := io.ReadFull(c, request); err != nil {
		return nil, err
	}
	reply := binary.BigEndian.AppendUint32(nil, 32)
	reply = append(append(reply, "NPAM"...), request[4:8]...)
	reply = append(reply, request[4:8]...)
	kind := uint16(1)
	if message {
		kind = 2
	}
	reply = binary.LittleEndian.AppendUint16(reply, kind)
	reply = binary.LittleEndian.AppendUint16(reply, 0x05ff)
	reply = binary.LittleEndian.AppendUint32(reply, 0)
	reply = binary.LittleEndian.AppendUint64(reply, 4096)
	reply = binary.LittleEndian.AppendUint32(reply, 0)
	_, err := c.Write(reply)
	return request, err
}

func echoBytes(c *net.UnixConn, _ []byte) {
	buf := make([]byte, 1<<17)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

func echoMessages(c *net.UnixConn, _ []byte) {
	r := bufio.NewReader(c)
	for {
		var length [2]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return
		}
		message := make([]byte, 2+int(binary.LittleEndian.Uint16(length[:])))
		copy(message, length[:])
		if _, err := io.ReadFull(r, message[2:]); err != nil {
			return
		}
		if _, err := c.Write(message); err != nil {
			return
		}
	}
}

// tellRequest answers with the names of accounts in what smbd says about the client.
func tellRequest(c *net.UnixConn, request []byte) {
	for _, name := range []string{"alice", "bob", "root"} {
		if strings.Contains(string(request), "\x00"+name+"\x00") {
			fmt.Fprintf(c, "%s ", name)
		}
	}
	fmt.Fprintln(c)
	_, _ = io.Copy(io.Discard, c)
}

func answerAndEnd(c *net.UnixConn, _ []byte) {
	buf := make([]byte, 100)
	n, _ := c.Read(buf)
	fmt.Fprintf(c, "bye, %s", buf[:n])
	// What a daemon writes and then closes at once smbd loses: it has the READ fail because of the end that it sees after it.
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	for unread := 1; unread > 0; time.Sleep(10 * time.Millisecond) {
		_ = raw.Control(func(fd uintptr) { unread, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	}
	time.Sleep(100 * time.Millisecond)
}

// tellTotal reads to the end and leaves what it was in a file.
func tellTotal(c *net.UnixConn, dir string) {
	sum := sha256.New()
	n, _ := io.Copy(sum, c)
	temporary := filepath.Join(dir, "total.new")
	_ = os.WriteFile(temporary, fmt.Appendf(nil, "%d %x", n, sum.Sum(nil)), 0o644)
	_ = os.Rename(temporary, filepath.Join(dir, "total"))
}

// flood writes as much as is taken, and reads nothing.
func flood(c *net.UnixConn, _ []byte) {
	buf := make([]byte, 1<<16)
	for {
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
}

// afterSilence answers the third read, so that writes have to get through while a reading waits.
func afterSilence(c *net.UnixConn, _ []byte) {
	r := bufio.NewReader(c)
	var lines []string
	for range 3 {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	fmt.Fprintf(c, "%s\n", strings.Join(lines, ","))
	_, _ = r.ReadByte()
}
