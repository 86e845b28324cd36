package announce

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/guise-project/guise/internal/capability"
	"github.com/guise-project/guise/internal/leftover"
	"github.com/guise-project/guise/token"
)

func init() {
	// few-descriptors: a user that may have few descriptors under way announces until it would have to wait.
	roles["few-descriptors"] = func() {
		limit := unix.Rlimit{Cur: 20, Max: 20}
		exitOn(unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
		near, far := mustPair(unix.SOCK_SEQPACKET)
		defer unix.Close(far)
		s := senderOn(near)
		var look Look
		exitOn(look.Take())
		n, err := announceUntilFull(s, &look)
		if !errors.Is(err, ErrNotNow) {
			exitOn(fmt.Errorf("after %d: %w", n, err))
		}
		os.Stdout.WriteString(strconv.Itoa(n))
	}
}

// senderOn returns a sender on a control channel that is set up already.
func senderOn(near int) *Sender {
	end, err := newChannelEnd(near)
	exitOn(err)
	return &Sender{end: end}
}

// announceUntilFull returns how many contexts went at once, and why the next one did not.
func announceUntilFull(s *Sender, look *Look) (int, error) {
	for n := range 1 << 16 {
		if err := s.Announce(AtOnce, look, Context{Now: true}); err != nil {
			return n, err
		}
	}
	return 1 << 16, errors.New("there is no end")
}

// connectedSender returns both ends of a control channel between this process and itself.
func connectedSender(t *testing.T) (*Sender, *Receiver) {
	t.Helper()
	server, client := pair(t, unix.SOCK_STREAM)
	s, err := Open(client, nil, Hello{Tracking: Dynamic})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	r, err := ReceivePreface(server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	if _, _, err := r.Hello(); err != nil {
		t.Fatal(err)
	}
	if err := r.Follow(server); errors.Is(err, ErrCannotProve) {
		t.Skip("this kernel can't prove contexts: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	return s, r
}

func TestSendingAtOnceDoesNotWaitAndWorksOnceTheServerHasReceived(t *testing.T) {
	sends := []struct {
		name string
		root bool
		send func(s *Sender, look *Look) error
	}{
		{"a context", false, func(s *Sender, look *Look) error { return s.Announce(AtOnce, look, Context{Now: true}) }},
		{"a loss", false, func(s *Sender, _ *Look) error { return s.Lost(AtOnce, 1) }},
		{"a way", true, func(s *Sender, _ *Look) error { return s.Way(AtOnce, testWay) }},
	}
	for _, test := range sends {
		t.Run(test.name, func(t *testing.T) {
			if test.root && os.Geteuid() != 0 {
				t.Skip("needs root: the client can become anybody")
			}
			s, r := connectedSender(t)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var look Look
			if err := look.Take(); err != nil {
				t.Fatal(err)
			}
			leftover.ByThis(t, func() {
				sent, err := announceUntilFull(s, &look)
				if err != ErrNotNow {
					t.Fatalf("after %d announcements: %v, want ErrNotNow", sent, err)
				}
				if err := test.send(s, &look); err != nil && err != ErrNotNow {
					t.Fatalf("with the queue full: %v, want ErrNotNow", err)
				}
				if a, err := r.Next(); err != nil || a == nil {
					t.Fatalf("Next = %+v, %v", a, err)
				} else {
					a.Proof.Release()
				}
				for { // the rest
					a, err := r.Next()
					if err != nil {
						t.Fatal(err)
					}
					if a == nil {
						break
					}
					a.Proof.Release()
				}
				if err := test.send(s, &look); err != nil {
					t.Fatalf("after the server has received: %v", err)
				}
				if err := s.Announce(AtOnce, &look, Context{Now: true, Source: 5}); err != nil {
					t.Fatal(err)
				}
				for {
					a, err := r.Next()
					if err != nil || a == nil {
						t.Fatalf("Next = %+v, %v, want what was sent last", a, err)
					}
					a.Proof.Release()
					if a.Source == 5 {
						break
					}
				}
			})
		})
	}
}

// TestSendingAtOnceDoesNotFailWhereTooManyDescriptorsAreUnderWay is about the kernel's limit for a user.
func TestSendingAtOnceDoesNotFailWhereTooManyDescriptorsAreUnderWay(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", role+"=few-descriptors")
	cmd.Stderr = os.Stderr
	if os.Geteuid() == 0 { // which the limit does not bind
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61006, Gid: 61016}}
	}
	out, err := cmd.Output()
	if n, convErr := strconv.Atoi(string(out)); err != nil || convErr != nil || n > 30 {
		t.Errorf("it sent %q announcements, %v, want about 20", out, err)
	}
}

func TestSendingThatWaitsGoesOnWhenTheServerHasReceived(t *testing.T) {
	s, r := connectedSender(t)
	sent := make(chan error, 1)
	full := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var look Look
		if err := look.Take(); err != nil {
			sent <- err
			return
		}
		n, err := announceUntilFull(s, &look)
		if err != ErrNotNow {
			sent <- fmt.Errorf("after %d: %w", n, err)
			return
		}
		close(full)
		sent <- s.Announce(Wait, &look, Context{Now: true, Source: 5})
	}()
	select {
	case <-full:
	case err := <-sent:
		t.Fatal(err)
	}
	for {
		a, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if a == nil {
			runtime.Gosched()
			continue
		}
		a.Proof.Release()
		if a.Source == 5 {
			break
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// TestSenderTellsWhatAReceiverUnderstands has what each of the sender's methods says arrive.
func TestSenderTellsWhatAReceiverUnderstands(t *testing.T) {
	for _, how := range []Sending{AtOnce, Wait} {
		t.Run(fmt.Sprintf("wait=%v", how), func(t *testing.T) {
			s, r := connectedSender(t)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var look Look
			if err := look.Take(); err != nil {
				t.Fatal(err)
			}
			next := func() *Announced {
				t.Helper()
				a, err := r.Next()
				if err != nil || a == nil {
					t.Fatalf("Next = %+v, %v", a, err)
				}
				return a
			}
			leftover.ByThis(t, func() {
				if err := s.Announce(how, &look, Context{Level: token.Identification, At: 3, Source: 4}); err != nil {
					t.Fatal(err)
				}
				a := next()
				if a.Sequence != 1 || a.At != 3 || a.Source != 4 || a.Now || a.Way != nil || a.Proof == nil || !lookIs(&look, a.Token) || a.Token.Level() != token.Identification {
					t.Errorf("a context arrives as %+v", a)
				}
				a.Proof.Release()

				own, err := look.Prove()
				if err != nil {
					t.Fatal(err)
				}
				for range 2 { // it is good for more than one
					if err := s.Prove(how, own, Context{Now: true}); err != nil {
						t.Fatal(err)
					}
					a = next()
					if !a.Now || a.At != 0 || !lookIs(&look, a.Token) {
						t.Errorf("a change between writes arrives as %+v", a)
					}
					a.Proof.Release()
				}
				own.Close()

				if err := s.Lost(how, 6); err != nil {
					t.Fatal(err)
				}
				if a = next(); a.Sequence != 4 || a.Source != 6 || a.Token != nil || a.Proof != nil || !a.Now || a.Way != nil {
					t.Errorf("a loss arrives as %+v", a)
				}
				a.Proof.Release()
				if os.Geteuid() != 0 {
					if err := s.Way(how, testWay); err != unix.EPERM {
						t.Errorf("a user's way: %v, want EPERM", err)
					}
				}
			})
		})
	}
}

// TestProofIsPassedOnAsItCame has this process receive another's context and pass it on.
func TestProofIsPassedOnAsItCame(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: this process passes on another's context")
	}
	test := way{name: scripted + "placed 1", as: user}
	pipe, said, _, end := startWay(t, test, foreignToken(t))
	if said != "sent" {
		t.Fatal(said)
	}
	s, next := connectedSender(t)
	leftover.ByThis(t, func() {
		r := follows(t, pipe)
		defer r.Close()
		first, err := r.Next()
		if err != nil || first == nil {
			t.Fatalf("Next = %+v, %v", first, err)
		}
		end() // the next one along does not ask whether the origin lives
		for i := range 3 {
			if err := errors.Join(s.Way(AtOnce, testWay), s.Pass(AtOnce, first.Proof, Context{Now: true})); err != nil {
				t.Fatal(err)
			}
			if i == 1 {
				// What one holder does with it does not take it from another.
				first.Proof.Hold().Release()
			}
			passed, err := next.Next()
			if err != nil || passed == nil {
				t.Fatalf("Next = %+v, %v", passed, err)
			}
			if passed.Token.UID() != 61001 || passed.Token.GID() != 61011 || !reflect.DeepEqual(passed.Way, testWay) {
				t.Errorf("it arrives as %v by way of %+v", passed.Token, passed.Way)
			}
			passed.Proof.Release()
		}
		first.Proof.Release()
	})
}

func TestProofIsClosedByTheLastOfItsHolders(t *testing.T) {
	isOpen := func(fd int) bool { _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); return err == nil }
	for _, holders := range []int{1, 2, 3, 50} {
		for _, together := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d holders, together %v", holders, together), func(t *testing.T) {
				leftover.ByThis(t, func() {
					near, far, err := socketpair()
					if err != nil {
						t.Fatal(err)
					}
					defer unix.Close(near)
					of, err := token.OfDescriptor(far)
					if err != nil {
						t.Fatal(err)
					}
					p := newProof(far, 0, of)
					for range holders - 1 {
						if p.Hold() != p {
							t.Fatal("Hold returns another proof")
						}
					}
					if together {
						var all sync.WaitGroup
						for range holders {
							all.Add(1)
							go func() { defer all.Done(); p.Release() }()
						}
						all.Wait()
					} else {
						for i := range holders {
							if !isOpen(far) {
								t.Fatalf("it is closed after %d of %d releases", i, holders)
							}
							p.Release()
						}
					}
					if isOpen(far) {
						t.Errorf("it is open after %d releases", holders)
					}
				})
			})
		}
	}
	t.Run("no proof", func(t *testing.T) {
		var p *Proof
		if p.Hold() != nil {
			t.Error("Hold returns a proof")
		}
		p.Release()
	})
}

func TestLookFromOutsideAgreesWithTheThreadsOwn(t *testing.T) {
	raw := func(call uintptr, a, b, c uintptr) func() {
		return func() {
			if _, _, e := syscall.RawSyscall(call, a, b, c); e != 0 {
				panic(e)
			}
		}
	}
	const unchanged = ^uintptr(0)
	groups := func(n int) func() {
		return func() {
			list := make([]uint32, n+1)
			for i := range n {
				list[i] = uint32(61100 + i)
			}
			if err := rawSetgroups(list[:n]); err != nil {
				panic(err)
			}
		}
	}
	without := func(set func(*capability.Sets)) func() {
		return func() {
			sets, e := capability.Get()
			if e != 0 {
				panic(e)
			}
			set(&sets)
			if e := sets.Set(); e != 0 {
				panic(e)
			}
		}
	}
	tests := []struct {
		name   string
		root   bool
		change func()
	}{
		{"as it is", false, func() {}},
		{"effective uid", true, raw(unix.SYS_SETRESUID, unchanged, 61001, unchanged)},
		{"all uids", true, raw(unix.SYS_SETRESUID, 61001, 61001, 61001)},
		{"real and saved uid alone", true, raw(unix.SYS_SETRESUID, 61001, unchanged, 61002)},
		{"greatest uid", true, raw(unix.SYS_SETRESUID, 61001, 4294967294, 61002)},
		{"effective gid", true, raw(unix.SYS_SETRESGID, unchanged, 61001, unchanged)},
		{"real and saved gid alone", true, raw(unix.SYS_SETRESGID, 61001, unchanged, 61002)},
		{"no groups", true, groups(0)},
		{"one group", true, groups(1)},
		{"40 groups", true, groups(40)},
		{"no groups and a uid", true, func() { groups(0)(); raw(unix.SYS_SETRESUID, 61001, 61002, 61003)() }},
		{"no capabilities", true, without(func(s *capability.Sets) { *s = capability.Sets{} })},
		{"fewer effective ones", true, without(func(s *capability.Sets) { s.Effective &^= 1 })},
		{"fewer permitted ones", true, without(func(s *capability.Sets) { s.Effective &^= 3; s.Permitted &^= 1 })},
		{"a highest one alone", true, without(func(s *capability.Sets) {
			*s = capability.Sets{Permitted: 1 << unix.CAP_CHECKPOINT_RESTORE, Effective: 0}
		})},
		{"a user's, which do not count", true, func() {
			raw(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0)()
			raw(unix.SYS_SETRESUID, 61001, 61001, 61001)()
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.root && os.Geteuid() != 0 {
				t.Skip("needs root: it changes a thread's ids and groups")
			}
			type thread struct {
				look Look
				tid  int
				err  error
			}
			looked, done := make(chan thread), make(chan struct{})
			go func() {
				runtime.LockOSThread() // for good: the thread ends with the goroutine
				test.change()
				var it thread
				it.err = it.look.Take()
				it.tid = unix.Gettid()
				looked <- it
				<-done
			}()
			it := <-looked
			defer waitThread(it.tid)
			defer close(done)
			if it.err != nil {
				t.Fatal(it.err)
			}
			var outside Look
			outside.groups = []uint32{1, 2, 3} // of an earlier look
			if err := takeOf(&outside, it.tid); err != nil {
				t.Fatal(err)
			}
			if !outside.Equal(&it.look) {
				t.Errorf("from outside it is %+v, from inside %+v", outside, it.look)
			}
		})
	}
}

// waitThread waits until a thread that ends with its goroutine has ended, which takes it a moment. Until then it would be found
// left over.
func waitThread(tid int) {
	for unix.Tgkill(os.Getpid(), tid, 0) != unix.ESRCH {
		runtime.Gosched()
	}
}

func rawSetgroups(groups []uint32) error {
	if _, _, e := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0); e != 0 {
		return e
	}
	return nil
}

func TestLookAtAThreadThatIsNotThereFails(t *testing.T) {
	ended := make(chan int)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		ended <- unix.Gettid()
	}()
	gone := <-ended
	waitThread(gone)
	for name, tid := range map[string]int{"gone": gone, "never was": 1 << 30, "0": 0, "another process": os.Getppid()} {
		t.Run(name, func(t *testing.T) {
			var l Look
			if err := takeOf(&l, tid); err == nil {
				t.Errorf("it looks like %+v", l)
			}
		})
	}
}

func TestOpenSendsWhatGoesBeforeTheHello(t *testing.T) {
	server, client := pair(t, unix.SOCK_STREAM)
	broken := errors.New("it can't be sent")
	leftover.ByThis(t, func() {
		if s, err := Open(client, func(*Sender) error { return broken }, Hello{}); !errors.Is(err, broken) || s != nil {
			t.Errorf("Open = %v, %v, want %v", s, err, broken)
		}
		if first := peekFirst(t, server); first != Nothing {
			t.Errorf("then %v came, want Nothing", first)
		}
	})
	if os.Geteuid() != 0 {
		t.Skip("needs root: the client can become anybody")
	}
	s, err := Open(client, func(s *Sender) error { return s.Way(Wait, testWay) }, Hello{Source: 8})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := ReceivePreface(server)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if hello, way, err := r.Hello(); err != nil || hello.Source != 8 || !reflect.DeepEqual(way, testWay) {
		t.Errorf("Hello = %+v, by way of %+v, %v", hello, way, err)
	}
}

// takeOf looks at a thread from outside.
func takeOf(l *Look, tid int) error {
	thread, err := OpenThread(int32(tid))
	if err != nil {
		return err
	}
	defer thread.Close()
	return thread.Look(l)
}

// lookIs reports whether the looker has the ids and groups of t.
func lookIs(l *Look, t *token.Token) bool {
	return l.uid == t.UID() && l.gid == t.GID() && slices.Equal(l.groups, t.Groups())
}

// TestWhoeverHearsTheEndKnowsWhatCameBefore has one goroutine take in what the server said, while another would hear the end.
func TestWhoeverHearsTheEndKnowsWhatCameBefore(t *testing.T) {
	s, r := connectedSender(t)
	r.Refuse(RefusedAccess)
	r.Close()
	ok, err := s.Answer(func(answer any) {
		if s.hearing.TryLock() {
			s.hearing.Unlock()
			t.Error("somebody else may hear the end before what came before it is taken in")
		}
		if answer != RefusedAccess {
			t.Errorf("the server said %v", answer)
		}
	})
	if !ok || err != nil {
		t.Errorf("Answer = %t, %v", ok, err)
	}
	if ok, err := s.Answer(func(answer any) { t.Error("there is more: ", answer) }); ok || err != io.EOF {
		t.Errorf("Answer at the end = %t, %v", ok, err)
	}
}

// TestWaitingForAnAnswerEndsWhoeverTakesItIn has the answer taken in by somebody else than who waits for it.
func TestWaitingForAnAnswerEndsWhoeverTakesItIn(t *testing.T) {
	for range 200 {
		s, r := connectedSender(t)
		var taken atomic.Int32
		take := func(any) { taken.Add(1) }
		ended := make(chan error)
		go func() { ended <- s.WaitAnswer(take, func() bool { return taken.Load() > 0 }) }()
		runtime.Gosched()
		r.Tell(InForce{Level: token.Impersonation, Tracking: Dynamic})
		for taken.Load() == 0 {
			if _, err := s.Answer(take); err != nil {
				t.Fatal(err)
			}
		}
		// A deadline that is set when there is no need to wait any more does not end the waiting.
		if err := s.SetDeadline(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err != nil || taken.Load() != 1 {
				t.Fatalf("waiting for what %d have taken in ends with %v", taken.Load(), err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("it is still waited for an answer that somebody else has taken in")
		}
		if err := errors.Join(s.Close(), s.SetDeadline(time.Time{})); !errors.Is(err, os.ErrClosed) {
			t.Fatalf("setting the deadline after closing gives %v", err)
		}
		r.Close()
	}
}

// TestDeadlineThatHasPassedEndsWhatNeedNotWait: as with any connection.
func TestDeadlineThatHasPassedEndsWhatNeedNotWait(t *testing.T) {
	s, _ := connectedSender(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var look Look
	if err := look.Take(); err != nil {
		t.Fatal(err)
	}
	for _, polled := range []bool{false, true} {
		if polled {
			if _, err := s.end.poll(); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.SetDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if err := s.Announce(Wait, &look, Context{Now: true}); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("polled %v: announcing after the deadline gives %v", polled, err)
		}
		never := func() bool { return false }
		if err := s.WaitAnswer(func(any) {}, never); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("polled %v: waiting after the deadline gives %v", polled, err)
		}
		if err := s.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if err := s.Announce(Wait, &look, Context{Now: true}); err != nil {
			t.Errorf("polled %v: announcing without a deadline gives %v", polled, err)
		}
	}
	s.Close()
	if _, err := s.end.poll(); err == nil {
		t.Error("a closed end is polled, for good")
	}
	if err := s.Announce(Wait, &look, Context{Now: true}); err == nil {
		t.Error("announcing on a closed channel works")
	}
}

// TestWaitingIsEnded by a deadline that is set meanwhile, and by closing, after which nothing is left open.
func TestWaitingIsEnded(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(*Sender) error
		with error
	}{
		{"by a deadline", func(s *Sender) error { return s.SetDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		{"by closing", (*Sender).Close, nil}, // whichever error
	} {
		t.Run(test.name, func(t *testing.T) {
			leftover.ByThis(t, func() {
				near, far := mustPair(unix.SOCK_SEQPACKET)
				defer unix.Close(far)
				s := senderOn(near)
				ended := make(chan error, 1)
				go func() { ended <- s.WaitAnswer(func(any) {}, func() bool { return false }) }()
				polled := func() bool {
					s.end.mu.Lock()
					defer s.end.mu.Unlock()
					return s.end.polled != nil
				}
				for !polled() {
					runtime.Gosched()
				}
				if err := test.end(s); err != nil {
					t.Error(err)
				}
				select {
				case err := <-ended:
					if err == nil || test.with != nil && !errors.Is(err, test.with) {
						t.Errorf("it ends with %v", err)
					}
				case <-time.After(20 * time.Second):
					t.Error("it does not end")
				}
				s.Close()
			})
		})
	}
}
