/* The security token service: AssumeRole and AssumeRoleWithWebIdentity. */
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/wire.h"
#include "tunneld/aws/credentials_internal.h"
#include "tunneld/base/file.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const sts_headers[][2] = {{"Content-Type", "application/x-www-form-urlencoded; charset=utf-8"},
					     {"Accept", "application/json"}};

static void put_param(struct tnl_buf *b, const char *key, const char *value)
{
	if (!value)
		return;
	tnl_buf_printf(b, "&%s=", key);
	if (tnl_uri_encode(b, value, strlen(value), false) != 0)
		b->failed = true;
}

static void put_session_name(struct tnl_buf *b, const struct td_credentials_run *r, const char *name)
{
	char made[40];

	snprintf(made, sizeof(made), "tunneld-%llu", (unsigned long long)td_aws_now(r->a));
	put_param(b, "RoleSessionName", name ? name : made);
}

static void put_number(struct tnl_buf *b, const char *key, unsigned v)
{
	if (v)
		tnl_buf_printf(b, "&%s=%u", key, v);
}

static const struct td_role *role_at_hand(const struct td_credentials_run *r)
{
	return &r->plan->steps[r->step].role;
}

/* {"Error":{"Code","Message"}} */
static void api_error(const struct tnl_json *j, const char **code, const char **text)
{
	const struct tnl_json *e = tnl_json_iget(j, "Error");

	*code = tnl_json_str(tnl_json_iget(e, "Code"));
	*text = tnl_json_str(tnl_json_iget(e, "Message"));
	*code = *code ? *code : "no code";
	*text = *text ? *text : "no text";
}

enum { KEY_ID, SECRET, TOKEN, EXPIRATION, CODE, MESSAGE, TEXTS };
static const char *const texts_of_interest[TEXTS] = {"AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration",
						     "Code",	    "Message"};

static void put_texts(struct tnl_jw *w, char *const *texts, int from, int to)
{
	tnl_jw_obj(w);
	for (int i = from; i < to; i++)
		if (texts[i])
			tnl_jw_kv(w, texts_of_interest[i], texts[i]);
	tnl_jw_end_obj(w);
}

/* Proxies and emulators answer in XML whatever was asked for: what is of interest in it, in the form of the JSON. */
static struct tnl_json *from_xml(const struct td_http_client_response *h, const char *outer, const char *inner)
{
	char *texts[TEXTS];
	struct tnl_json *j = NULL;
	struct tnl_buf b;
	struct tnl_jw w;

	if (tnl_xml_texts(h->body, h->body_len, texts_of_interest, texts, TEXTS) != 0)
		return NULL;
	tnl_buf_init(&b, 65536);
	tnl_jw_init(&w, &b);
	tnl_jw_obj(&w);
	tnl_jw_key(&w, "Error");
	put_texts(&w, texts, CODE, TEXTS);
	tnl_jw_key(&w, outer);
	tnl_jw_obj(&w);
	tnl_jw_key(&w, inner);
	tnl_jw_obj(&w);
	tnl_jw_key(&w, "Credentials");
	put_texts(&w, texts, KEY_ID, CODE);
	tnl_jw_end_obj(&w);
	tnl_jw_end_obj(&w);
	tnl_jw_end_obj(&w);
	if (!b.failed)
		j = tnl_json_parse(tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini_wiped(&b);
	tnl_xml_texts_fini(texts, TEXTS);
	return j;
}

static void take_reply(struct td_credentials_run *r, const struct td_http_client_response *h, const char *op)
{
	struct tnl_json *j = h->err ? NULL : tnl_json_parse(h->body, h->body_len);
	char outer[64], inner[64];
	const char *code, *text;

	snprintf(outer, sizeof(outer), "%sResponse", op);
	snprintf(inner, sizeof(inner), "%sResult", op);
	if (!h->err && !j)
		j = from_xml(h, outer, inner);
	if (h->err) {
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "STS cannot be reached: %s", h->why);
	} else if (h->status != 200) {
		api_error(j, &code, &text);
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "role %.120s cannot be assumed (%s: %.200s): %s",
					role_at_hand(r)->arn, code, text,
					strncmp(code, "ExpiredToken", 12) == 0 ||
						strcmp(code, "InvalidClientTokenId") == 0
					    ? "renew the credentials that it is assumed with"
					    : "check role_arn and the role's trust policy");
	} else {
		const struct tnl_json *c = tnl_json_get(tnl_json_get(tnl_json_get(j, outer), inner), "Credentials");

		if (td_keys_parse(&r->keys, c, "SessionToken") != 0)
			td_credentials_run_fail(r, TD_CREDENTIALS_ERROR,
						"STS answered %s without usable credentials: %s", op, td_keys_fault(c));
		else
			td_credentials_run_have(r);
	}
	tnl_json_free(j);
}

static void post_form(struct td_credentials_run *r, const struct tnl_buf *body, bool sign)
{
	char url[400];
	struct td_credentials_send q = {.method = "POST",
					.url = url,
					.headers = sts_headers,
					.n = 2,
					.body = tnl_buf_data(body),
					.len = tnl_buf_len(body),
					.keys = sign ? &r->keys : NULL,
					.service = "sts"};

	snprintf(url, sizeof(url), "%s/", td_aws_url(r->a, TD_SERVICE_STS));
	if (body->failed)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "STS: the request is too long");
	else
		td_credentials_run_send(r, &q);
}

/* --- AssumeRole -------------------------------------------------------------------------- */

static void got_assumed(struct td_credentials_run *r, const struct td_http_client_response *h)
{
	take_reply(r, h, "AssumeRole");
}

static void ask_assume(struct td_credentials_run *r)
{
	const struct td_role *role = role_at_hand(r);
	struct tnl_buf b;

	tnl_buf_init(&b, 16384);
	tnl_buf_puts(&b, "Action=AssumeRole&Version=2011-06-15");
	put_param(&b, "RoleArn", role->arn);
	put_session_name(&b, r, role->session_name);
	put_param(&b, "ExternalId", role->external_id);
	put_number(&b, "DurationSeconds", role->duration_s);
	post_form(r, &b, true);
	tnl_buf_fini(&b);
}

static void put_member(struct tnl_buf *b, const char *key, const char *value)
{
	if (!value)
		return;
	tnl_buf_printf(b, "%s\"%s\": \"", tnl_buf_len(b) > 1 ? ", " : "", key);
	for (const char *c = value; *c; c++) {
		if (*c == '"' || *c == '\\')
			tnl_buf_putc(b, '\\');
		tnl_buf_putc(b, (uint8_t)*c);
	}
	tnl_buf_putc(b, '"');
}

/* A role that requires a one-time code can only be assumed by a person. The aws command leaves what
 * it got in a cache whose file names are made of the arguments: it is used from there. */
static void from_cli_cache(struct td_credentials_run *r, const struct td_role *role)
{
	struct tnl_json *j = NULL;
	struct tnl_buf b;
	char *path, *text = NULL;
	size_t n = 0;

	tnl_buf_init(&b, 8192);
	tnl_buf_putc(&b, '{');
	if (role->duration_s)
		tnl_buf_printf(&b, "\"DurationSeconds\": %u", role->duration_s);
	put_member(&b, "ExternalId", role->external_id);
	put_member(&b, "RoleArn", role->arn);
	put_member(&b, "RoleSessionName", role->session_name);
	put_member(&b, "SerialNumber", role->mfa_serial);
	tnl_buf_putc(&b, '}');
	path = b.failed || !tnl_buf_str(&b) ? NULL : td_env_cache_file(".aws/cli/cache", tnl_buf_str(&b));
	if (path && (text = td_file_read(path, 65536, 0, &n, NULL)) != NULL)
		j = tnl_json_parse(text, n);
	if (j && td_keys_parse(&r->keys, tnl_json_get(j, "Credentials"), "SessionToken") == 0 &&
	    r->keys.expires_s > td_aws_now(r->a) + 60)
		td_credentials_run_have(r);
	else
		td_credentials_run_fail(
		    r, TD_CREDENTIALS_NEEDS_LOGIN,
		    "needs login: profile %.80s requires a one-time code (mfa_serial): run: aws sts get-caller-identity --profile %.80s",
		    role->profile, role->profile);
	tnl_json_free(j);
	tnl_free_wiped(text, n);
	tnl_free(path);
	tnl_buf_fini(&b);
}

static void start_assume(struct td_credentials_run *r)
{
	const struct td_role *role = role_at_hand(r);

	if (role->mfa_serial)
		from_cli_cache(r, role);
	else
		td_credentials_run_ask(r, "STS", 3, ask_assume, got_assumed);
}

const struct td_credentials_source td_credentials_assume_role = {.start = start_assume};

/* --- AssumeRoleWithWebIdentity ---------------------------------------------------------------- */

static void got_web(struct td_credentials_run *r, const struct td_http_client_response *h)
{
	take_reply(r, h, "AssumeRoleWithWebIdentity");
}

static void ask_web(struct td_credentials_run *r)
{
	const struct td_role *role = role_at_hand(r);
	size_t n = 0;
	char *token = td_file_read(r->plan->token_file, 65536, 0, &n, NULL);
	struct tnl_buf b;

	if (!token) {
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "the web identity token %.200s cannot be read: %s",
					r->plan->token_file, strerror(errno));
		return;
	}
	token[strcspn(token, "\r\n")] = 0;
	tnl_buf_init(&b, 256 * 1024);
	tnl_buf_puts(&b, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15");
	put_param(&b, "RoleArn", role->arn);
	put_session_name(&b, r, role->session_name);
	put_number(&b, "DurationSeconds", role->duration_s);
	put_param(&b, "WebIdentityToken", token);
	tnl_free_wiped(token, n);
	post_form(r, &b, false);
	tnl_buf_fini_wiped(&b);
}

static void start_web(struct td_credentials_run *r)
{
	td_credentials_run_ask(r, "STS", 3, ask_web, got_web);
}

const struct td_credentials_source td_credentials_web_identity = {.start = start_web};
