package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/cloudsoda/go-smb2"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/bench/internal/ratio"
	"github.com/guise-project/guise/bench/internal/role"
	"github.com/guise-project/guise/smb"
)

// plainSession is a logon by go-smb2 alone, with what package smb asks of it: SMB 3.1.1, signed.
type plainSession struct {
	tcp   net.Conn
	logon *smb2.Session
	share *smb2.Share
}

func ntlm() smb2.Initiator { return &smb2.NTLMInitiator{User: user.Name, Password: user.Password} }

// logOn makes a TCP connection, negotiates and logs on.
func logOn(host string, who smb2.Initiator) (*plainSession, error) {
	tcp, err := net.Dial("tcp", net.JoinHostPort(host, "445"))
	if err != nil {
		return nil, err
	}
	d := smb2.Dialer{
		MaxCreditBalance: 8,
		Negotiator:       smb2.Negotiator{RequireMessageSigning: true, SpecifiedDialect: 0x0311},
		Initiator:        who,
	}
	logon, err := d.DialConn(context.Background(), tcp, host)
	if err != nil {
		tcp.Close()
		return nil, err
	}
	return &plainSession{tcp: tcp, logon: logon}, nil
}

// mount connects to the tree that pipes are in.
func (s *plainSession) mount(host string) (err error) {
	s.share, err = s.logon.Mount(`\\` + host + `\IPC$`)
	return err
}

func (s *plainSession) open(pipe string) (*smb2.File, error) {
	f, err := s.share.OpenFile(pipe, os.O_RDWR, 0o600)
	if err == nil {
		runtime.SetFinalizer(f, nil) // it would wait for the server
	}
	return f, err
}

func (s *plainSession) close() { s.tcp.Close() }

// plainPipe is a pipe that is open by go-smb2 alone.
type plainPipe struct {
	*plainSession
	file *smb2.File
}

func openPlain(host, pipe string) (*plainPipe, error) {
	s, err := logOn(host, ntlm())
	if err != nil {
		return nil, err
	}
	if err := s.mount(host); err != nil {
		s.close()
		return nil, err
	}
	f, err := s.open(pipe)
	if err != nil {
		s.close()
		return nil, err
	}
	return &plainPipe{s, f}, nil
}

func (p *plainPipe) Read(b []byte) (int, error)  { return p.file.ReadAt(b, 0) }
func (p *plainPipe) Write(b []byte) (int, error) { return p.file.WriteAt(b, 0) }
func (p *plainPipe) Close() error                { p.close(); return nil }

// dialPassword opens a pipe by package smb, without Kerberos.
func dialPassword(host, pipe, mode string) (*guise.Conn, error) {
	d := smb.Dialer{Message: mode == inMessages, Password: &smb.Password{User: user.Name, Secret: user.Password}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return d.Dial(ctx, pipeName(host, pipe))
}

func pipeName(host, pipe string) string { return `\\` + host + `\pipe\` + pipe }

// oneCarried sends 1 KiB there and back.
func oneCarried(c io.ReadWriter, buf []byte) error {
	if _, err := c.Write(buf); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	if _, err := io.ReadFull(c, buf); err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	return nil
}

// carriedTrips is a side of round trips through smbd.
func carriedTrips(c io.ReadWriter) ratio.Side {
	buf := make([]byte, carried)
	return func(n int) {
		for range n {
			if err := oneCarried(c, buf); err != nil {
				role.Fatal(err)
			}
		}
	}
}
