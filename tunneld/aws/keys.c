/* One set of keys: owned copies, wiped when they go; and how services write them as JSON. */
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"
#include "tunneld/aws/internal.h"
#include <string.h>

static void free_wiped(char **s)
{
	if (*s)
		tnl_free_wiped(*s, strlen(*s));
	*s = NULL;
}

void td_keys_fini(struct td_keys *k)
{
	free_wiped(&k->id);
	free_wiped(&k->secret);
	free_wiped(&k->token);
	k->expires_s = 0;
}

int td_keys_set(struct td_keys *k, const char *id, const char *secret, const char *token, uint64_t ends_s)
{
	struct td_keys new = {.id = tnl_strdup(id), .secret = tnl_strdup(secret), .expires_s = ends_s};

	if (token && *token)
		new.token = tnl_strdup(token);
	if (!new.id || !new.secret || (token && *token && !new.token)) {
		td_keys_fini(&new);
		return TNL_ENOMEM;
	}
	td_keys_fini(k);
	*k = new;
	return 0;
}

/* The end as a date, or as a number of seconds (STS) or milliseconds (SSO) since 1970. */
static int parse_end(const struct tnl_json *v, uint64_t *s)
{
	const char *text = tnl_json_str(v);
	int64_t n;
	uint64_t ms;

	*s = 0;
	if (!v || tnl_json_is_null(v))
		return 0;
	if (text) {
		if (tnl_iso_date_parse(text, strlen(text), &ms) != 0)
			return TNL_ESYNTAX;
		*s = ms / 1000;
		return 0;
	}
	if (!tnl_json_int(v, &n) || n <= 0)
		return TNL_ESYNTAX;
	*s = n > 100000000000 ? (uint64_t)n / 1000 : (uint64_t)n;
	return 0;
}

const char *td_keys_fault(const struct tnl_json *o)
{
	static const char *const needed[] = {"AccessKeyId", "SecretAccessKey"};
	uint64_t end;

	for (size_t i = 0; i < TNL_COUNT(needed); i++) {
		const char *v = tnl_json_str(tnl_json_iget(o, needed[i]));

		if (!v || !*v)
			return i ? "SecretAccessKey is missing" : "AccessKeyId is missing";
	}
	if (parse_end(tnl_json_iget(o, "Expiration"), &end) != 0)
		return "Expiration is no time like 2026-11-25T01:04:26Z";
	return "out of memory";
}

int td_keys_parse(struct td_keys *k, const struct tnl_json *o, const char *token_key)
{
	const char *id = tnl_json_str(tnl_json_iget(o, "AccessKeyId"));
	const char *secret = tnl_json_str(tnl_json_iget(o, "SecretAccessKey"));
	uint64_t end;

	if (!id || !*id || !secret || !*secret || parse_end(tnl_json_iget(o, "Expiration"), &end) != 0)
		return TNL_ESYNTAX;
	return td_keys_set(k, id, secret, tnl_json_str(tnl_json_iget(o, token_key)), end);
}
