package main

import (
	"bufio"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/token"
)

// The search paths, as login(1) has them.
const (
	userPath = "/usr/local/bin:/usr/bin:/bin"
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// environment returns a clean environment for a client's command: nothing of the server's but the language and the time zone.
func environment(client *token.Token, qos guise.QoS, remotePath, localPath string) []string {
	uid := strconv.FormatUint(uint64(client.UID()), 10)
	path := userPath
	if client.UID() == 0 {
		path = rootPath
	}
	env := []string{
		"PATH=" + path,
		"PROTO=" + protocol(client),
		"IPCREMOTEEUID=" + uid,
		"IPCREMOTEEGID=" + strconv.FormatUint(uint64(client.GID()), 10),
		"IPCREMOTEPATH=" + remotePath,
		"IPCLOCALPATH=" + localPath,
		"GUISE_CLIENT=" + accountName(client),
		"GUISE_LEVEL=" + qos.Level.String(),
		"GUISE_TRACKING=" + qos.Tracking.String(),
		"GUISE_VIA=" + viaText(client.Via()),
	}
	if origin, network := client.Origin(); network {
		env = append(env, networkVariables(origin)...)
	}
	env = append(env, accountVariables(uid)...)
	return append(env, slices.DeleteFunc(os.Environ(), notLocale)...)
}

func protocol(client *token.Token) string {
	if client.Source().Kind == token.FromNetwork {
		return "SMB"
	}
	return "IPC"
}

// networkVariables returns where a client came from over the network.
func networkVariables(o token.Origin) []string {
	encrypted := "0"
	if o.Encrypted {
		encrypted = "1"
	}
	variables := []string{"SMBREMOTEUSER=" + o.Account, "SMBREMOTEDOMAIN=" + o.Domain, "SMBENCRYPTED=" + encrypted}
	if o.Client.IsValid() {
		variables = append(variables, "SMBREMOTEIP="+o.Client.Addr().String(), "SMBREMOTEPORT="+strconv.Itoa(int(o.Client.Port())))
	}
	return variables
}

func notLocale(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	return name != "LANG" && name != "LANGUAGE" && name != "TZ" && !strings.HasPrefix(name, "LC_")
}

// accountVariables returns what login(1) sets of an account, nothing if no account has that uid.
func accountVariables(uid string) []string {
	account, err := user.LookupId(uid)
	if err != nil {
		return nil
	}
	variables := []string{"USER=" + account.Username, "LOGNAME=" + account.Username, "HOME=" + account.HomeDir}
	passwd, err := os.Open("/etc/passwd")
	if err != nil {
		return variables
	}
	defer passwd.Close()
	if shell := shellIn(passwd, account.Username); shell != "" {
		variables = append(variables, "SHELL="+shell)
	}
	return variables
}

// shellIn returns the shell of an account in passwd(5) format, "" if it is not in there: os/user does not tell shells.
func shellIn(passwd io.Reader, account string) string {
	lines := bufio.NewScanner(passwd)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) != 7 || fields[0] != account {
			continue
		}
		if fields[6] == "" {
			return "/bin/sh" // as passwd(5) says
		}
		return fields[6]
	}
	return ""
}
