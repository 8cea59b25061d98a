/* Credentials that the platform hands out near by: the container's endpoint and IMDSv2. */
#include "lib/alloc.h"
#include "tunneld/aws/credentials_internal.h"
#include "tunneld/base/file.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static void keys_from(struct td_credentials_run *r, const struct td_http_client_response *h)
{
	struct tnl_json *j = tnl_json_parse(h->body, h->body_len);
	const char *code = tnl_json_str(tnl_json_iget(j, "Code"));

	if (code && strcmp(code, "Success") != 0)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "%s has no credentials: %.100s", r->what, code);
	else if (td_keys_parse(&r->keys, j, "Token") != 0)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "%s answered without usable credentials: %s", r->what,
					td_keys_fault(j));
	else
		td_credentials_run_have(r);
	tnl_json_free(j);
}

/* --- container ------------------------------------------------------------------------- */

static void got_container(struct td_credentials_run *r, const struct td_http_client_response *h)
{
	if (h->err)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR,
					"the container's credentials endpoint cannot be reached: %s", h->why);
	else if (h->status != 200)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR,
					"the container's credentials endpoint answered %d: check the task's role",
					h->status);
	else
		keys_from(r, h);
}

static void ask_container(struct td_credentials_run *r)
{
	const struct td_credentials_plan *p = r->plan;
	const char *headers[1][2] = {{"Authorization", p->container_token}};
	struct td_credentials_send q = {
	    .method = "GET", .url = p->container_url, .headers = headers, .timeout_ns = 5 * TD_SEC, .direct = true};
	char *text = NULL;
	size_t n = 0;

	if (p->container_token_file) {
		text = td_file_read(p->container_token_file, 65536, 0, &n, NULL);
		if (!text) {
			td_credentials_run_fail(r, TD_CREDENTIALS_ERROR,
						"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE %.200s cannot be read: %s",
						p->container_token_file, strerror(errno));
			return;
		}
		text[strcspn(text, "\r\n")] = 0;
		headers[0][1] = text;
	}
	if (headers[0][1] && strpbrk(headers[0][1], "\r\n"))
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR,
					"the container's authorization token holds a line break");
	else {
		q.n = headers[0][1] ? 1 : 0;
		td_credentials_run_send(r, &q);
	}
	tnl_free_wiped(text, n);
}

static void start_container(struct td_credentials_run *r)
{
	td_credentials_run_ask(r, "the container's endpoint", 3, ask_container, got_container);
}

const struct td_credentials_source td_credentials_container = {.start = start_container};

/* --- instance metadata, version 2 ---------------------------------------------------------- */

struct instance {
	char token[512], role[160];
};

#define ROLES "/latest/meta-data/iam/security-credentials/"

static void ask_imds(struct td_credentials_run *r, const char *method, const char *path, const char *header,
		     const char *value)
{
	const char *base = td_env_get("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
		   *mode = td_env_get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
	const char *headers[1][2] = {{header, value}};
	struct td_credentials_send q = {
	    .method = method, .headers = headers, .n = 1, .timeout_ns = TD_SEC, .direct = true};
	char url[512];

	if (!base)
		base = mode && strcasecmp(mode, "ipv6") == 0 ? "http://[fd00:ec2::254]" : "http://169.254.169.254";
	snprintf(url, sizeof(url), "%.200s%s%s", base, base[strlen(base) - 1] == '/' ? "" : "/", path + 1);
	q.url = url;
	td_credentials_run_send(r, &q);
}

static void got_imds_keys(struct td_credentials_run *r, const struct td_http_client_response *h)
{
	struct instance *m = r->mine;

	if (h->err || h->status != 200)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR,
					"the instance's metadata has no credentials of role %.80s: %s", m->role,
					h->err ? h->why : "no such role");
	else
		keys_from(r, h);
}

static void ask_imds_keys(struct td_credentials_run *r)
{
	struct instance *m = r->mine;
	char path[256];

	snprintf(path, sizeof(path), ROLES "%s", m->role);
	ask_imds(r, "GET", path, "x-aws-ec2-metadata-token", m->token);
}

static void got_imds_role(struct td_credentials_run *r, const struct td_http_client_response *h)
{
	struct instance *m = r->mine;
	size_t n = 0;

	if (h->err || h->status != 200 || !h->body_len) {
		td_credentials_run_fail(
		    r, TD_CREDENTIALS_NONE,
		    "no credentials: this instance has no role: attach an instance profile, or set keys or a profile");
		return;
	}
	while (n < h->body_len && h->body[n] != '\r' && h->body[n] != '\n')
		n++;
	if (n >= sizeof(m->role)) {
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR,
					"the instance's metadata names a role that is too long");
		return;
	}
	memcpy(m->role, h->body, n);
	m->role[n] = 0;
	if (strspn(m->role, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+=,.@_-") != n)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "the instance's metadata names a role that is none");
	else
		td_credentials_run_ask(r, "the instance's metadata", 2, ask_imds_keys, got_imds_keys);
}

static void ask_imds_role(struct td_credentials_run *r)
{
	struct instance *m = r->mine;

	ask_imds(r, "GET", ROLES, "x-aws-ec2-metadata-token", m->token);
}

static void got_imds_token(struct td_credentials_run *r, const struct td_http_client_response *h)
{
	struct instance *m = r->mine;

	if (h->err || h->status != 200 || !h->body_len || h->body_len >= sizeof(m->token) ||
	    memchr(h->body, '\r', h->body_len) || memchr(h->body, '\n', h->body_len) ||
	    memchr(h->body, 0, h->body_len)) {
		td_credentials_run_fail(
		    r, TD_CREDENTIALS_NONE,
		    "no credentials: set access_key_id and secret_access_key, AWS_ACCESS_KEY_ID and "
		    "AWS_SECRET_ACCESS_KEY, or a profile (aws configure); instance metadata: %s",
		    h->err ? "not there" : "no token");
		return;
	}
	memcpy(m->token, h->body, h->body_len);
	m->token[h->body_len] = 0;
	td_credentials_run_ask(r, "the instance's metadata", 2, ask_imds_role, got_imds_role);
}

static void ask_imds_token(struct td_credentials_run *r)
{
	ask_imds(r, "PUT", "/latest/api/token", "x-aws-ec2-metadata-token-ttl-seconds", "21600");
}

static void start_instance(struct td_credentials_run *r)
{
	r->mine = tnl_calloc(1, sizeof(struct instance));
	if (r->mine)
		td_credentials_run_ask(r, "the instance's metadata", 2, ask_imds_token, got_imds_token);
	else
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "out of memory");
}

static void cancel_instance(struct td_credentials_run *r)
{
	tnl_free_wiped(r->mine, sizeof(struct instance));
	r->mine = NULL;
}

const struct td_credentials_source td_credentials_instance = {.start = start_instance, .cancel = cancel_instance};
