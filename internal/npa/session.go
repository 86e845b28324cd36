package npa

import (
	"fmt"
	"math"
)

// mostGroups is how many supplementary groups the kernel allows (NGROUPS_MAX).
const mostGroups = 65536

// mostSIDs bounds the SIDs: a domain's and Samba's own for each group, and some more.
const mostSIDs = 2*mostGroups + 1024

// Session is who the client is: what smbd's authentication came to, or what smb.conf made of it. With "force user" there,
// whoever logs in comes as that user; and a guest too has the user's ids, so that ids without Authenticated say nothing.
type Session struct {
	// UID, GID and Groups are what Samba mapped the client to, with Groups in Samba's order.
	UID, GID uint32
	Groups   []uint32

	// Account and Domain name the account that the client authenticated as.
	Account, Domain string
	// DNSDomain is the domain's DNS name, Principal the account's principal; smbd mostly has neither, and they are empty.
	DNSDomain, Principal string
	// PrincipalConstructed says that Principal was made up from the account and the domain.
	PrincipalConstructed bool
	// UnixName is the name of the local account that UID is of.
	UnixName string

	// SIDs is the client's security token, the user's own SID first, without Samba's marks.
	SIDs []string
	// Authenticated says that the client proved to be somebody: S-1-5-11 is among the SIDs, and it is neither Anonymous nor
	// Guest. Nobody else is to be let in.
	Authenticated bool
	// Anonymous is a client that gave no name at all (S-1-5-7), Guest one that Samba let in though it is unknown (S-1-5-32-546).
	Anonymous, Guest bool

	// Encrypted says that the SMB request that opened the pipe came encrypted, with SMB 3. From then on smbd lets no
	// request on this pipe through that is not. False says that this is not certain.
	Encrypted bool
	// Dialect and Cipher are those of the connection if the open was encrypted, otherwise 0. smbd does not tell them of others.
	Dialect Dialect
	Cipher  Cipher

	// Probe says that nobody wants the pipe: smbd only looks whether there is one, and will close the connection when
	// it has the reply. No Samba up to 4.24 does this.
	Probe bool
}

// transport reads auth_session_info_transport.
func (r *reader) transport(s *Session) {
	r.present("session_info.session_info")
	r.blob("exported_gssapi_credentials") // other daemons might act with them; this one does not want to be able to
	r.session(s)
}

// session reads auth_session_info.
func (r *reader) session(s *Session) {
	r.present("security_token")
	r.present("unix_token")
	r.present("info")
	r.present("unix_info")
	r.absent("torture")
	r.blob("session_key")
	r.absent("credentials")
	r.skip(16, 4, "unique_session_token")
	r.enum(2, "ticket_type")
	r.securityToken(s)
	r.unixToken(s)
	r.userInfo(s)
	r.unixInfo(s)
}

// securityToken reads security_token.
func (r *reader) securityToken(s *Session) {
	r.align(8, "num_sids")
	r.sids(s)
	r.skip(8, 8, "privilege_mask")
	r.skip(4, 4, "rights_mask")
	if r.level < level8 {
		return
	}
	// Claims come only from a domain controller's own smbd. What they would look like was never seen.
	fields := [...]string{"local_claims", "user_claims", "device_claims", "device_sids"}
	for _, field := range fields {
		if r.u32("num_"+field) != 0 {
			r.fail(r.at-4, "num_"+field, "none are expected; sessions with claims are not supported")
		}
	}
	for _, field := range fields {
		r.same(0, field)
	}
	r.enum(2, "evaluate_claims")
}

// sids reads the token's SIDs and what follows from them.
func (r *reader) sids(s *Session) {
	start := r.at
	n := r.u32("num_sids")
	r.same(n, "sids")
	var m marks
	for range r.count(n, leastSID, mostSIDs, start, "num_sids") {
		at := r.at
		id := r.sid("sids")
		if r.err != nil {
			return
		}
		marked, problem := m.take(id)
		if problem != "" {
			r.fail(at, "sids", problem)
			return
		}
		if marked {
			continue
		}
		text := id.String()
		s.SIDs = append(s.SIDs, text)
		switch text {
		case authenticatedUsers:
			s.Authenticated = true
		case anonymousLogon:
			s.Anonymous = true
		case builtinGuests:
			s.Guest = true
		}
	}
	s.Authenticated = s.Authenticated && !s.Anonymous && !s.Guest
	if problem := m.check(r.level); problem != "" {
		r.fail(start, "sids", problem)
	}
	s.Encrypted, s.Dialect, s.Cipher = m.encrypted(), m.dialect, m.cipher
	s.Probe = m.flags&flagProbeOnly != 0
}

// unixToken reads security_unix_token. The size of the array at its end comes first.
func (r *reader) unixToken(s *Session) {
	r.align(4, "groups")
	at := r.at
	n := r.u32("groups")
	s.UID = r.id("uid")
	s.GID = r.id("gid")
	r.same(n, "ngroups")
	r.align(8, "groups")
	groups := r.count(n, 8, mostGroups, at, "groups")
	if groups == 0 {
		return
	}
	s.Groups = make([]uint32, groups)
	for i := range s.Groups {
		s.Groups[i] = r.id("groups")
	}
}

// id reads a uid or a gid.
func (r *reader) id(field string) uint32 {
	id := r.u64(field)
	switch {
	case id > math.MaxUint32:
		r.fail(r.at-8, field, "an id of 32 bits is expected")
	case id == math.MaxUint32:
		r.fail(r.at-8, field, fmt.Sprintf("%d, which is no id", id))
	}
	return uint32(id)
}

// userInfo reads auth_user_info. Of its flags nothing is used: in level 7 the same byte says "authenticated" in Samba 4.17
// and 4.18, and "guest" in 4.19.
func (r *reader) userInfo(s *Session) {
	r.present("account_name")
	principal := r.pointer("user_principal_name")
	s.PrincipalConstructed = r.boolean("user_principal_constructed")
	domain := r.pointer("domain_name")
	dnsDomain := r.pointer("dns_domain_name")
	others := [...]string{"full_name", "logon_script", "profile_path", "home_directory", "home_drive", "logon_server"}
	var is [len(others)]bool
	for i, field := range others {
		is[i] = r.pointer(field)
	}
	for _, field := range [...]string{
		"last_logon", "last_logoff", "acct_expiry", "last_password_change", "allow_password_change", "force_password_change",
	} {
		r.skip(8, 4, field)
	}
	r.u16("logon_count")
	r.u16("bad_password_count")
	r.u32("acct_flags")
	if r.level == level5 {
		r.boolean("authenticated")
	} else {
		r.u32("user_flags") // or a byte "authenticated", which has padding after it
	}
	s.Account = r.text("account_name")
	s.Principal = r.optional(principal, "user_principal_name")
	s.Domain = r.optional(domain, "domain_name")
	s.DNSDomain = r.optional(dnsDomain, "dns_domain_name")
	for i, field := range others {
		r.optional(is[i], field)
	}
}

// unixInfo reads auth_user_info_unix. The sanitized name is from what the client called itself, and says nothing about who it is.
func (r *reader) unixInfo(s *Session) {
	r.present("unix_name")
	r.present("sanitized_username")
	s.UnixName = r.text("unix_name")
	r.text("sanitized_username")
}
