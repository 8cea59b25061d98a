/* Passwords of a proxy against the hashes of crypt(3).  One hash takes some ms of the loop: what was right once is
 * known again by a keyed hash that this process alone can make.  Wrong ones are few: an address may be wrong WRONG_MAX
 * times, and once more every WRONG_EACH, and all of them together TRIES_A_SECOND; so who guesses shuts out nobody else,
 * and holds the loop up for a small part of its time. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "lib/crypto.h"
#include "tunneld/net/throttle.h"

#include <crypt.h>
#include <string.h>

enum { TRIES_MAX = 10, TRIES_A_SECOND = 5, KNOWN = 64, WRONG_MAX = 5 };
#define WRONG_EACH (6 * TD_SEC)

void fwd_passwords_init(struct fwd_passwords *p)
{
	memset(p, 0, sizeof(*p));
	tnl_random(p->key, sizeof(p->key));
	p->tries = TRIES_MAX;
}

void fwd_passwords_fini(struct fwd_passwords *p)
{
	td_throttle_free(p->wrong);
	p->wrong = NULL;
}

/* The hash of a user; NULL: there is no such one. */
static const char *find_user(const struct td_strlist *lines, const char *user)
{
	size_t n = strlen(user);
	for (int i = 0; n && i < lines->n; i++)
		if (strncmp(lines->v[i], user, n) == 0 && lines->v[i][n] == ':')
			return lines->v[i] + n + 1;
	return NULL;
}

static bool is_known(const struct fwd_passwords *p, const uint8_t mark[32])
{
	bool known = false;
	for (unsigned i = 0; i < p->nknown; i++)
		known |= tnl_ct_eq(p->known[i], mark, 32);
	return known;
}

static void learn(struct fwd_passwords *p, const uint8_t mark[32])
{
	memcpy(p->known[p->next], mark, 32);
	p->next = (p->next + 1) % KNOWN;
	p->nknown += p->nknown < KNOWN;
}

/* One more hash may be made now. */
static bool may_try(struct fwd_passwords *p, uint64_t now)
{
	uint64_t more = (now - p->tries_at) * TRIES_A_SECOND / TD_SEC;
	if (more) {
		p->tries = more >= TRIES_MAX - p->tries ? TRIES_MAX : p->tries + (unsigned)more;
		p->tries_at = now;
	}
	return p->tries > 0;
}

static bool matches(const char *hash, const char *password)
{
	struct crypt_data data = {0};
	const char *got = crypt_r(password, hash, &data);
	bool ok =
	    got && strlen(got) == strlen(hash) && tnl_ct_eq((const uint8_t *)got, (const uint8_t *)hash, strlen(hash));
	tnl_wipe(&data, sizeof(data));
	return ok;
}

enum fwd_password fwd_password_check(struct fwd_passwords *p, const struct td_strlist *lines, const char *user,
				     const char *password, const struct td_addr *from, uint64_t now)
{
	const char *hash = find_user(lines, user);
	/* Who is not there costs as much time as who is. */
	const char *tried = hash ? hash : strchr(lines->v[0], ':') + 1;
	char text[600 + 256 + 256];
	uint8_t mark[32];
	int n = snprintf(text, sizeof(text), "%s%c%s%c%s", user, 0, password, 0, tried);

	tnl_hmac_sha256(p->key, sizeof(p->key), text, (size_t)n, mark);
	tnl_wipe(text, sizeof(text));
	if (is_known(p, mark))
		return FWD_PASSWORD_OK;
	if (!p->wrong)
		p->wrong = td_throttle_new(WRONG_MAX, WRONG_EACH);
	if (!p->wrong || !td_throttle_allows(p->wrong, from, now) || !may_try(p, now))
		return FWD_PASSWORD_UNCHECKED;
	if (!matches(tried, password) || !hash) {
		p->tries--;
		td_throttle_failed(p->wrong, from, now);
		return FWD_PASSWORD_WRONG;
	}
	learn(p, mark);
	return FWD_PASSWORD_OK;
}
