// Named pipes as Win32 has them: a server that reads files as its client, and a client that asks for one.
//
//	pipe.exe server
//	pipe.exe client FILE CONTENTS
//
// The client is told on its standard input how to ask and how often, as command peers' other clients are.
//
// Both do what costs least in Wine: each instance has a thread that stays, and a request and its answer are one transaction.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

static const char pipe_name[] = "\\\\.\\pipe\\guise-bench";

// How long a file's name, and what is in it, are at most.
enum { LONGEST = 4096 };

// Instances of the pipe. The client uses one at a time; while the server gets that one ready again, it finds another.
enum { INSTANCES = 4 };

static void fail(const char *what, const char *on) {
	fprintf(stderr, "pipe.exe: %s %s: error %lu\n", what, on, GetLastError());
	ExitProcess(1);
}

// read_file reads the file to its end, as Go's os.ReadFile does.
static DWORD read_file(const char *name, char *contents) {
	HANDLE file = CreateFileA(name, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
	if (file == INVALID_HANDLE_VALUE)
		fail("CreateFile", name);
	DWORD length = 0, n;
	do {
		if (!ReadFile(file, contents + length, LONGEST - length, &n, NULL))
			fail("ReadFile", name);
		length += n;
	} while (n != 0 && length < LONGEST);
	CloseHandle(file);
	return length;
}

// serve has one client after the other on an instance of its own. A message is a file's name, or what is in the file.
static DWORD WINAPI serve(void *unused) {
	(void)unused;
	HANDLE pipe = CreateNamedPipeA(pipe_name, PIPE_ACCESS_DUPLEX, PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE | PIPE_WAIT,
		INSTANCES, LONGEST, LONGEST, 0, NULL);
	if (pipe == INVALID_HANDLE_VALUE)
		fail("CreateNamedPipe", pipe_name);
	// A client may have come before, and may have gone again.
	while (ConnectNamedPipe(pipe, NULL) || GetLastError() == ERROR_PIPE_CONNECTED || GetLastError() == ERROR_NO_DATA) {
		char name[LONGEST + 1], answer[LONGEST];
		DWORD n;
		while (ReadFile(pipe, name, LONGEST, &n, NULL)) {
			name[n] = 0;
			if (!ImpersonateNamedPipeClient(pipe))
				fail("ImpersonateNamedPipeClient", pipe_name);
			DWORD length = read_file(name, answer);
			if (!RevertToSelf())
				fail("RevertToSelf", pipe_name);
			if (!WriteFile(pipe, answer, length, &n, NULL))
				break;
		}
		DisconnectNamedPipe(pipe);
	}
	fail("ConnectNamedPipe", pipe_name);
	return 1;
}

static void run_server(void) {
	for (int i = 1; i < INSTANCES; i++)
		if (CreateThread(NULL, 0, serve, NULL, 0, NULL) == NULL)
			fail("CreateThread", "for an instance");
	serve(NULL);
}

// dial waits for an instance if none is free.
static HANDLE dial(void) {
	for (;;) {
		// The server may act as the client, and as who that is now: what guise calls static tracking.
		HANDLE pipe = CreateFileA(pipe_name, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING,
			SECURITY_SQOS_PRESENT | SECURITY_IMPERSONATION, NULL);
		if (pipe != INVALID_HANDLE_VALUE) {
			DWORD mode = PIPE_READMODE_MESSAGE; // a client's end is one of bytes until it says so
			if (!SetNamedPipeHandleState(pipe, &mode, NULL, NULL))
				fail("SetNamedPipeHandleState", pipe_name);
			return pipe;
		}
		if (GetLastError() != ERROR_PIPE_BUSY)
			fail("CreateFile", pipe_name);
		WaitNamedPipeA(pipe_name, NMPWAIT_WAIT_FOREVER);
	}
}

static void ask(HANDLE pipe, const char *file, const char *expected) {
	char answer[LONGEST] = {0};
	DWORD n;
	if (!TransactNamedPipe(pipe, (void *)file, strlen(file), answer, sizeof answer, &n, NULL))
		fail("TransactNamedPipe", pipe_name);
	if (n != strlen(expected) || memcmp(answer, expected, n) != 0) {
		fprintf(stderr, "pipe.exe: the answer is not what is in %s\n", file);
		ExitProcess(1);
	}
}

// say writes as it stands what C's printf would give Windows' line ends.
static void say(const char *line) {
	DWORD n;
	if (!WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), line, strlen(line), &n, NULL))
		fail("WriteFile", "standard output");
}

static void run_client(const char *file, const char *expected) {
	// The server was started at the same time.
	for (int tries = 0; !WaitNamedPipeA(pipe_name, NMPWAIT_WAIT_FOREVER); tries++) {
		if (tries == 3000)
			fail("WaitNamedPipe, for half a minute,", pipe_name);
		Sleep(10);
	}
	say("here\n");
	HANDLE open = INVALID_HANDLE_VALUE;
	char how[5];
	int n;
	while (scanf("%4s %d", how, &n) == 2) {
		for (int i = 0; i < n; i++) {
			if (strcmp(how, "once") == 0) {
				HANDLE pipe = dial();
				ask(pipe, file, expected);
				CloseHandle(pipe);
				continue;
			}
			if (open == INVALID_HANDLE_VALUE)
				open = dial();
			ask(open, file, expected);
		}
		say("done\n");
	}
}

int main(int argc, char **argv) {
	if (argc == 2 && strcmp(argv[1], "server") == 0)
		run_server();
	else if (argc == 4 && strcmp(argv[1], "client") == 0)
		run_client(argv[2], argv[3]);
	else {
		fprintf(stderr, "usage: pipe.exe server | pipe.exe client FILE CONTENTS\n");
		return 1;
	}
	return 0;
}
