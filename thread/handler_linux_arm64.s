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

#define SYS_write      64
#define SYS_capset     91
#define SYS_exit_group 94
#define SYS_rt_sigreturn 139
#define SYS_setresuid  147
#define SYS_setresgid  149
#define SYS_setgroups  159
#define SYS_getpid     172
#define SYS_gettid     178

#define STOP_STATUS    70

// The kernel calls it as a C function on the thread's signal stack: R1 has the siginfo_t, R30 the restorer's address. It may
// change every register but RSP and R30, because rt_sigreturn brings them back, and it must not touch the Go world: the thread may
// have been anywhere, in the collector, in the scheduler, in a system call. All signals are blocked meanwhile (sa_mask).
TEXT ·handler(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	// The sender says which slot. It is checked rather than believed: anybody who may signal this process can send a number.
	MOVD SI_VALUE(R1), R19
	MOVD ·slotCount(SB), R9
	CMP  R9, R19
	BHS  ignore
	MOVD $SLOT_SIZE, R9
	MUL  R9, R19, R19
	MOVD ·slotBase(SB), R9
	ADD  R9, R19, R19

	// The slot has to be this thread's, in this process: a vfork child shares the memory, a forked one has a copy of it.
	MOVD $SYS_gettid, R8
	SVC
	MOVW SLOT_TID(R19), R9
	CMPW R9, R0
	BNE  ignore
	MOVD $SYS_getpid, R8
	SVC
	MOVW ·handlerPID(SB), R9
	CMPW R9, R0
	BNE  ignore
	MOVD $1, R9
	MOVW R9, SLOT_HEARD(R19)

	// Half entered, half left, or inside another scope: whoever is at it takes the record afterwards.
	MOVW SLOT_STATE(R19), R9
	CMPW $STATE_IN, R9
	BNE  ignore

	// Taking the record by exchange makes it the handler's until it is done.
	ADD  $SLOT_WANT, R19, R10
again:
	LDAXR (R10), R20
	STLXR ZR, (R10), R11
	CBNZ R11, again
	CBZ  R20, ignore
	MOVD $1, R9
	MOVW R9, SLOT_CHANGED(R19)

	// capset(permitted -> effective): what comes next takes CAP_SETGID and CAP_SETUID, which a scope does not have.
	MOVD $SYS_capset, R8
	ADD  $REC_CAPHEADER, R20, R0
	ADD  $REC_CAPRAISED, R20, R1
	SVC
	CBNZ R0, fail
	MOVD $SYS_setgroups, R8
	MOVW REC_NGROUPS(R20), R0
	MOVD REC_GROUPS(R20), R1
	SVC
	CBNZ R0, fail
	MOVD $SYS_setresgid, R8
	MOVD $-1, R0
	MOVWU REC_GID(R20), R1
	MOVD $-1, R2
	SVC
	CBNZ R0, fail
	MOVD $SYS_setresuid, R8
	MOVD $-1, R0
	MOVWU REC_UID(R20), R1
	MOVD $-1, R2
	SVC
	CBNZ R0, fail
	// capset(what the context may have in a scope), which takes nothing: the permitted set has it.
	MOVD $SYS_capset, R8
	ADD  $REC_CAPHEADER, R20, R0
	ADD  $REC_CAPSCOPE, R20, R1
	SVC
	CBNZ R0, fail

	// The last touch: from here on the record may be freed. STLRW orders it after everything that was read of it.
	MOVD $1, R9
	STLRW R9, (R20) // REC_DONE
ignore:
	RET

fail:
	// The thread is half somebody. It must not return to any code.
	MOVD $SYS_write, R8
	MOVD $2, R0
	MOVD $·handlerFailed(SB), R1
	MOVD ·handlerFailedLen(SB), R2
	SVC
stop:
	MOVD $SYS_exit_group, R8
	MOVD $STOP_STATUS, R0
	SVC
	B    stop

// Where handler returns to: sigaction(2), sa_restorer.
TEXT ·restorer(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVD $SYS_rt_sigreturn, R8
	SVC
	BRK  $0 // not reached

// func handlerAddress() uintptr
TEXT ·handlerAddress(SB),NOSPLIT,$0-8
	MOVD $·handler(SB), R0
	MOVD R0, ret+0(FP)
	RET

// func restorerAddress() uintptr
TEXT ·restorerAddress(SB),NOSPLIT,$0-8
	MOVD $·restorer(SB), R0
	MOVD R0, ret+0(FP)
	RET
