/* proxy_auth: a file of user:HASH lines.  What it holds is part of the configuration, so that a reload sees it change.
 * Taken are the hashes of crypt(5) that cost a few ms, SHA-256 and SHA-512: `openssl passwd -6` and `mkpasswd -m
 * sha-512` make them. */
#include "lib/alloc.h"
#include "tunneld/base/file.h"
#include "tunneld/config/internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { ROUNDS_MAX = 20000, USERS_MAX = 1000, LINE_MAX_BYTES = 512, FAULTS_MAX = 20, FILE_MAX_BYTES = 1 << 20 };

/* What is wrong with one line, or NULL. */
static const char *line_fault(const char *s, size_t n)
{
	const char *colon = memchr(s, ':', n);
	const char *hash = colon ? colon + 1 : NULL;
	size_t len = colon ? n - (size_t)(hash - s) : 0;
	if (!colon || colon == s || n > LINE_MAX_BYTES || memchr(s, 0, n))
		return "needs user:HASH";
	if (len < 8 || hash[0] != '$' || (hash[1] != '5' && hash[1] != '6') || hash[2] != '$')
		return "needs a hash that begins with $5$ or $6$ (openssl passwd -6 makes one)";
	if (len > 10 && strncmp(hash + 3, "rounds=", 7) == 0 && strtoul(hash + 10, NULL, 10) > ROUNDS_MAX)
		return "a hash of more than 20000 rounds takes too long to check";
	return NULL;
}

static bool take_lines(struct td_cfg_parse *p, int line, const char *key, struct td_users *u, const char *text,
		       size_t len)
{
	int number = 0, faults = 0;
	for (const char *s = text, *end = text + len; s < end;) {
		size_t n = strcspn(s, "\n");
		size_t used = n && s[n - 1] == '\r' ? n - 1 : n;
		number++;
		bool counts = used && *s != '#';
		const char *fault = !counts		      ? NULL
				    : u->lines.n == USERS_MAX ? "one user too many"
							      : line_fault(s, used);
		if (fault && faults++ < FAULTS_MAX)
			td_cfg_error(p, line, "%s: %s:%d: %s", key, u->path, number, fault);
		if (counts && !fault) {
			u->lines.v = td_cfg_grow(u->lines.v, (size_t)(u->lines.n + 1) * sizeof(char *));
			u->lines.v[u->lines.n++] = td_cfg_dup(s, used);
		}
		s += n + (s + n < end);
	}
	if (faults > FAULTS_MAX)
		td_cfg_error(p, line, "%s: %s: %d lines more are wrong", key, u->path, faults - FAULTS_MAX);
	if (!u->lines.n && !faults)
		td_cfg_error(p, line, "%s: there is no user in %s", key, u->path);
	return u->lines.n && !faults;
}

bool td_users_set(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	struct td_users *u = (void *)((char *)base + o->off);
	struct stat st;
	size_t len;
	bool ok = false;

	td_users_clear(o, base);
	u->path = td_text_path(p->dir, value);
	char *text = td_file_read(u->path, FILE_MAX_BYTES, 0, &len, &st);
	if (!text)
		td_cfg_error(p, line, "%s: cannot read %s: %s", o->key, u->path, td_file_trouble(errno));
	else if ((st.st_mode & S_IROTH) || ((st.st_mode & S_IRGRP) && st.st_uid != 0))
		td_cfg_error(p, line, "%s: others can read %s (mode %04o); do: chmod 600 %s", o->key, u->path,
			     (unsigned)(st.st_mode & 07777), u->path);
	else
		ok = take_lines(p, line, o->key, u, text, len);
	if (text)
		tnl_free_wiped(text, len);
	return ok;
}

void td_users_clear(const struct td_opt *o, void *base)
{
	struct td_users *u = (void *)((char *)base + o->off);
	for (int i = 0; i < u->lines.n; i++)
		tnl_free(u->lines.v[i]);
	tnl_free(u->lines.v);
	tnl_free(u->path);
	*u = (struct td_users){0};
}

void td_users_inherit(const struct td_opt *o, void *base, const void *from)
{
	struct td_users *to = (void *)((char *)base + o->off);
	const struct td_users *u = (const void *)((const char *)from + o->off);
	if (to->path || !u->path)
		return;
	to->path = td_cfg_dup(u->path, strlen(u->path));
	to->lines.n = u->lines.n;
	to->lines.v = td_cfg_alloc((size_t)(u->lines.n + 1) * sizeof(char *));
	for (int i = 0; i < u->lines.n; i++)
		to->lines.v[i] = td_cfg_dup(u->lines.v[i], strlen(u->lines.v[i]));
}

bool td_users_same(const struct td_opt *o, const void *base_a, const void *base_b)
{
	const struct td_users *a = (const void *)((const char *)base_a + o->off);
	const struct td_users *b = (const void *)((const char *)base_b + o->off);
	if (!a->path != !b->path || (a->path && strcmp(a->path, b->path) != 0) || a->lines.n != b->lines.n)
		return false;
	for (int i = 0; i < a->lines.n; i++)
		if (strcmp(a->lines.v[i], b->lines.v[i]) != 0)
			return false;
	return true;
}
