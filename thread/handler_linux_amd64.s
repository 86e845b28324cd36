#include "textflag.h"

// The offsets of slot and record (slot_linux.go, record_linux.go), which TestHandlerKnowsTheLayout compares.
#define SLOT_SIZE      64
#define SLOT_TID       0
#define SLOT_STATE     4
#define SLOT_WANT      8
#define SLOT_HEARD     16
#define SLOT_CHANGED   20

#define REC_DONE       0
#define REC_NGROUPS    4
#define REC_GROUPS     8
#define REC_GID        16
#define REC_UID        20
#define REC_CAPHEADER  24
#define REC_CAPRAISED  32
#define REC_CAPSCOPE   56

#define STATE_IN       2

#define SI_VALUE       24 // of siginfo_t, for a queued signal

#define SYS_write      1
#define SYS_rt_sigreturn 15
#define SYS_getpid     39
#define SYS_setgroups  116
#define SYS_setresuid  117
#define SYS_setresgid  119
#define SYS_capset     126
#define SYS_gettid     186
#define SYS_exit_group 231

#define STOP_STATUS    70

// The kernel calls it as a C function on the thread's signal stack: SI has the siginfo_t, the return address is the restorer's.
// It may change every register, because rt_sigreturn brings them back, and it must not touch the Go world: the thread may have
// been anywhere, in the collector, in the scheduler, in a system call. All signals are blocked meanwhile (sa_mask).
TEXT ·handler(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	// The sender says which slot. It is checked rather than believed: anybody who may signal this process can send a number.
	MOVQ SI_VALUE(SI), R12
	CMPQ R12, ·slotCount(SB)
	JAE  ignore
	IMULQ $SLOT_SIZE, R12
	ADDQ ·slotBase(SB), R12

	// The slot has to be this thread's, in this process: a vfork child shares the memory, a forked one has a copy of it.
	MOVL $SYS_gettid, AX
	SYSCALL
	CMPL AX, SLOT_TID(R12)
	JNE  ignore
	MOVL $SYS_getpid, AX
	SYSCALL
	CMPL AX, ·handlerPID(SB)
	JNE  ignore
	MOVL $1, SLOT_HEARD(R12)

	// Half entered, half left, or inside another scope: whoever is at it takes the record afterwards.
	CMPL SLOT_STATE(R12), $STATE_IN
	JNE  ignore

	// Taking the record by exchange makes it the handler's until it is done.
	XORL AX, AX
	XCHGQ AX, SLOT_WANT(R12)
	TESTQ AX, AX
	JZ   ignore
	MOVQ AX, R13
	MOVL $1, SLOT_CHANGED(R12)

	// capset(permitted -> effective): what comes next takes CAP_SETGID and CAP_SETUID, which a scope does not have.
	MOVL $SYS_capset, AX
	LEAQ REC_CAPHEADER(R13), DI
	LEAQ REC_CAPRAISED(R13), SI
	SYSCALL
	TESTQ AX, AX
	JNZ  fail
	MOVL $SYS_setgroups, AX
	MOVLQSX REC_NGROUPS(R13), DI
	MOVQ REC_GROUPS(R13), SI
	SYSCALL
	TESTQ AX, AX
	JNZ  fail
	MOVL $SYS_setresgid, AX
	MOVQ $-1, DI
	MOVL REC_GID(R13), SI
	MOVQ $-1, DX
	SYSCALL
	TESTQ AX, AX
	JNZ  fail
	MOVL $SYS_setresuid, AX
	MOVQ $-1, DI
	MOVL REC_UID(R13), SI
	MOVQ $-1, DX
	SYSCALL
	TESTQ AX, AX
	JNZ  fail
	// capset(what the context may have in a scope), which takes nothing: the permitted set has it.
	MOVL $SYS_capset, AX
	LEAQ REC_CAPHEADER(R13), DI
	LEAQ REC_CAPSCOPE(R13), SI
	SYSCALL
	TESTQ AX, AX
	JNZ  fail

	// The last touch: from here on the record may be freed.
	MOVL $1, REC_DONE(R13)
ignore:
	RET

fail:
	// The thread is half somebody. It must not return to any code.
	MOVL $SYS_write, AX
	MOVQ $2, DI
	LEAQ ·handlerFailed(SB), SI
	MOVQ ·handlerFailedLen(SB), DX
	SYSCALL
stop:
	MOVL $SYS_exit_group, AX
	MOVQ $STOP_STATUS, DI
	SYSCALL
	JMP  stop

// Where handler returns to: sigaction(2), sa_restorer.
TEXT ·restorer(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVL $SYS_rt_sigreturn, AX
	SYSCALL
	INT  $3 // not reached

// func handlerAddress() uintptr
TEXT ·handlerAddress(SB),NOSPLIT,$0-8
	LEAQ ·handler(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func restorerAddress() uintptr
TEXT ·restorerAddress(SB),NOSPLIT,$0-8
	LEAQ ·restorer(SB), AX
	MOVQ AX, ret+0(FP)
	RET
