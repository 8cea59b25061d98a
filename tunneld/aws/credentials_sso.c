/* IAM Identity Center: the token that `aws sso login` left, refreshed when it can be, for keys of a role. */
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"
#include "tunneld/aws/credentials_internal.h"
#include "tunneld/base/file.h"
#include <stdio.h>
#include <string.h>

#define SOON_S 300

struct sso {
	struct tnl_json *cached; /* the file with the token */
	char *path;
};

static const char *cached(const struct td_credentials_run *r, const char *key)
{
	const struct sso *m = r->mine;

	return tnl_json_get_str(m->cached, key);
}

static void needs_login(struct td_credentials_run *r, const char *what)
{
	td_credentials_run_fail(r, TD_CREDENTIALS_NEEDS_LOGIN,
				"needs login: the SSO session of profile %.80s %s: run: aws sso login --profile %.80s",
				r->plan->profile, what, r->plan->profile);
}

/* Seconds left of a date in the cached file; 0: over, or not there. */
static uint64_t seconds_left(const struct td_credentials_run *r, const char *key)
{
	const char *s = cached(r, key);
	uint64_t ms, now = td_aws_now(r->a);

	return s && tnl_iso_date_parse(s, strlen(s), &ms) == 0 && ms / 1000 > now ? ms / 1000 - now : 0;
}

/* A date of the cached file that is there and cannot be read; NULL: none. */
static const char *bad_date(const struct td_credentials_run *r)
{
	static const char *const keys[] = {"expiresAt", "registrationExpiresAt"};
	uint64_t ms;

	for (size_t i = 0; i < TNL_COUNT(keys); i++) {
		const char *s = cached(r, keys[i]);

		if (s && tnl_iso_date_parse(s, strlen(s), &ms) != 0)
			return keys[i];
	}
	return NULL;
}

/* The token of the last login; false: there is none. */
static bool load_cache(struct td_credentials_run *r)
{
	struct sso *m = r->mine;
	size_t n = 0;
	char *text;

	m->path =
	    td_env_cache_file(".aws/sso/cache", r->plan->sso_session ? r->plan->sso_session : r->plan->sso_start_url);
	text = m->path ? td_file_read(m->path, 65536, 0, &n, NULL) : NULL;
	if (text)
		m->cached = tnl_json_parse(text, n);
	tnl_free_wiped(text, n);
	return m->cached && cached(r, "accessToken");
}

/* --- keys for the role ------------------------------------------------------------------ */

static void got_role(struct td_credentials_run *r, const struct td_http_client_response *h)
{
	struct tnl_json *j = h->err ? NULL : tnl_json_parse(h->body, h->body_len);
	const char *text = tnl_json_str(tnl_json_iget(j, "message"));

	if (h->err)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "SSO cannot be reached: %s", h->why);
	else if (h->status == 401)
		needs_login(r, "was ended");
	else if (h->status != 200)
		td_credentials_run_fail(
		    r, TD_CREDENTIALS_ERROR,
		    "SSO refuses role %.64s in account %.20s (%d %.200s): check sso_role_name and sso_account_id",
		    r->plan->sso_role, r->plan->sso_account, h->status, text ? text : "");
	else if (td_keys_parse(&r->keys, tnl_json_get(j, "roleCredentials"), "sessionToken") != 0)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "SSO answered without usable credentials: %s",
					td_keys_fault(tnl_json_get(j, "roleCredentials")));
	else
		td_credentials_run_have(r);
	tnl_json_free(j);
}

/* Services of Identity Center live in its own region, which need not be that of the tunnels. */
static void put_endpoint(const struct td_credentials_run *r, enum td_service s, const char *name, char *out, size_t cap)
{
	if (r->a->configured[s])
		snprintf(out, cap, "%s", td_aws_url(r->a, s));
	else
		snprintf(out, cap, "https://%s.%s.%s", name, r->plan->sso_region, r->a->suffix);
}

static void ask_role(struct td_credentials_run *r)
{
	const char *headers[1][2] = {{"x-amz-sso_bearer_token", cached(r, "accessToken")}};
	struct td_credentials_send q = {.method = "GET", .headers = headers, .n = 1};
	char base[300];
	struct tnl_buf url;

	put_endpoint(r, TD_SERVICE_SSO, "portal.sso", base, sizeof(base));
	tnl_buf_init(&url, 2048);
	tnl_buf_printf(&url, "%s/federation/credentials?role_name=", base);
	(void)!tnl_uri_encode(&url, r->plan->sso_role, strlen(r->plan->sso_role), false);
	tnl_buf_puts(&url, "&account_id=");
	(void)!tnl_uri_encode(&url, r->plan->sso_account, strlen(r->plan->sso_account), false);
	q.url = tnl_buf_str(&url);
	if (url.failed || !q.url)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "SSO: the request is too long");
	else
		td_credentials_run_send(r, &q);
	tnl_buf_fini(&url);
}

/* --- a new token --------------------------------------------------------------------------- */

static void put_kept(struct tnl_jw *w, const struct tnl_json *old, const char *key)
{
	if (tnl_json_get_str(old, key))
		tnl_jw_kv(w, key, tnl_json_get_str(old, key));
}

/* The file as the aws command writes it, so that it finds the new token too. */
static int save_token(struct td_credentials_run *r, const struct tnl_json *fresh, int64_t seconds)
{
	const char *again = tnl_json_get_str(fresh, "refreshToken");
	struct sso *m = r->mine;
	char end[TNL_ISO_STR];
	struct tnl_buf b;
	struct tnl_jw w;
	int rc = TNL_ENOMEM;

	tnl_iso_date((td_aws_now(r->a) + (uint64_t)seconds) * 1000, end);
	memcpy(end + 19, "Z", 2); /* without milliseconds */
	tnl_buf_init(&b, 65536);
	tnl_jw_init(&w, &b);
	tnl_jw_obj(&w);
	put_kept(&w, m->cached, "startUrl");
	put_kept(&w, m->cached, "region");
	tnl_jw_kv(&w, "accessToken", tnl_json_get_str(fresh, "accessToken"));
	tnl_jw_kv(&w, "expiresAt", end);
	put_kept(&w, m->cached, "clientId");
	put_kept(&w, m->cached, "clientSecret");
	put_kept(&w, m->cached, "registrationExpiresAt");
	put_kept(&w, again ? fresh : m->cached, "refreshToken");
	tnl_jw_end_obj(&w);
	if (!b.failed) {
		struct tnl_json *now = tnl_json_parse(tnl_buf_data(&b), tnl_buf_len(&b));

		if (now) {
			tnl_json_free(m->cached);
			m->cached = now;
			rc = 0;
		}
		/* Not being able to write it costs others a refresh, us nothing. */
		if (td_file_write(m->path, tnl_buf_data(&b), tnl_buf_len(&b), TD_FILE_SYNC) != 0)
			td_warn("aws", NULL, "the refreshed SSO token cannot be kept file=\"%s\"", m->path);
	}
	tnl_buf_fini_wiped(&b);
	return rc;
}

static void got_token(struct td_credentials_run *r, const struct td_http_client_response *h)
{
	struct tnl_json *j = h->err ? NULL : tnl_json_parse(h->body, h->body_len);
	const char *text = tnl_json_get_str(j, "accessToken");
	int64_t seconds;

	if (!h->err && h->status == 200 && text && tnl_json_int(tnl_json_get(j, "expiresIn"), &seconds) &&
	    seconds > 0 && save_token(r, j, seconds) == 0)
		td_credentials_run_ask(r, "SSO", 3, ask_role, got_role);
	else if (seconds_left(r, "expiresAt") > 30) /* the old one still holds */
		td_credentials_run_ask(r, "SSO", 3, ask_role, got_role);
	else if (h->err)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "SSO cannot be reached to refresh the token: %s",
					h->why);
	else
		needs_login(r, "has expired");
	tnl_json_free(j);
}

static void ask_token(struct td_credentials_run *r)
{
	static const char *const headers[][2] = {{"Content-Type", "application/json"}};
	struct td_credentials_send q = {.method = "POST", .headers = headers, .n = 1};
	char url[320], base[300];
	struct tnl_buf b;
	struct tnl_jw w;

	put_endpoint(r, TD_SERVICE_SSO_OIDC, "oidc", base, sizeof(base));
	snprintf(url, sizeof(url), "%s/token", base);
	tnl_buf_init(&b, 65536);
	tnl_jw_init(&w, &b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "clientId", cached(r, "clientId"));
	tnl_jw_kv(&w, "clientSecret", cached(r, "clientSecret"));
	tnl_jw_kv(&w, "grantType", "refresh_token");
	tnl_jw_kv(&w, "refreshToken", cached(r, "refreshToken"));
	tnl_jw_end_obj(&w);
	q.url = url;
	q.body = tnl_buf_data(&b);
	q.len = tnl_buf_len(&b);
	if (b.failed)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "SSO: the request is too long");
	else
		td_credentials_run_send(r, &q);
	tnl_buf_fini_wiped(&b);
}

static void start_sso(struct td_credentials_run *r)
{
	r->mine = tnl_calloc(1, sizeof(struct sso));
	if (!r->mine) {
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "out of memory");
		return;
	}
	if (!load_cache(r)) {
		needs_login(r, "has not begun");
		return;
	}
	const char *bad = bad_date(r);
	if (bad)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR,
					"SSO: %s is no time like 2026-11-25T01:04:26Z in %.200s: run: aws sso login "
					"--profile %.80s",
					bad, ((const struct sso *)r->mine)->path, r->plan->profile);
	else if (seconds_left(r, "expiresAt") > SOON_S)
		td_credentials_run_ask(r, "SSO", 3, ask_role, got_role);
	else if (cached(r, "refreshToken") && cached(r, "clientId") && cached(r, "clientSecret") &&
		 seconds_left(r, "registrationExpiresAt") > 0)
		td_credentials_run_ask(r, "SSO", 2, ask_token, got_token);
	else if (seconds_left(r, "expiresAt") > 30)
		td_credentials_run_ask(r, "SSO", 3, ask_role, got_role);
	else
		needs_login(r, "has expired");
}

static void cancel_sso(struct td_credentials_run *r)
{
	struct sso *m = r->mine;

	if (!m)
		return;
	tnl_json_free(m->cached);
	tnl_free(m->path);
	tnl_free(m);
	r->mine = NULL;
}

const struct td_credentials_source td_credentials_sso = {.start = start_sso, .cancel = cancel_sso};
