/* The environment of one [aws] block: region, endpoints, TLS, proxy, keys. */
#include "tunneld/aws_int.h"

#include "lib/alloc.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SYSTEM_CA "/etc/ssl/certs/ca-certificates.crt"

static uint64_t wall_s(void *ctx)
{
	return (uint64_t)time(NULL);
}

static char *slurp(const char *path, size_t *n)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size > 16 << 20) {
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	char *p = tnl_malloc((size_t)st.st_size + 1);
	ssize_t r = p ? read(fd, p, (size_t)st.st_size) : -1;
	close(fd);
	if (r < 0) {
		tnl_free(p);
		return NULL;
	}
	p[r] = '\0';
	*n = (size_t)r;
	return p;
}

static const char *first_of(const char *a, const char *b, const char *c)
{
	return a && *a ? a : b && *b ? b : c && *c ? c : NULL;
}

static struct tnl_tls_ctx *make_tls(const struct td_aws_config *c, char *why, size_t cap)
{
	const char *path = first_of(c->ca_file, getenv("AWS_CA_BUNDLE"), getenv("SSL_CERT_FILE"));
	size_t n = 0;
	char text[200];

	path = path ? path : SYSTEM_CA;
	char *pem = slurp(path, &n);
	if (!pem) {
		snprintf(why, cap, "cannot read the CA file %s", path);
		return NULL;
	}
	struct tnl_tls_config tc = { .ca_pem = pem, .ca_pem_len = n, .unix_time = wall_s };
	struct tnl_tls_ctx *ctx = tnl_tls_ctx_new(&tc, text, sizeof text);
	if (!ctx)
		snprintf(why, cap, "CA file %s: %s", path, text);
	tnl_free(pem);
	return ctx;
}

struct td_aws *td_aws_new(struct td_loop *l, const struct td_aws_config *c, char *why, size_t cap)
{
	struct td_aws *a = tnl_calloc(1, sizeof *a);
	const char *region = first_of(c->region, getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION"));

	if (!a)
		return NULL;
	a->refs = 1;
	a->loop = l;
	a->region = tnl_strdup(region ? region : "us-east-1");
	a->ssm = c->ssm_endpoint ? tnl_strdup(c->ssm_endpoint) : NULL;
	a->ssmmessages = c->ssmmessages_endpoint ? tnl_strdup(c->ssmmessages_endpoint) : NULL;
	a->kms = c->kms_endpoint ? tnl_strdup(c->kms_endpoint) : NULL;
	const char *id = first_of(c->access_key_id, getenv("AWS_ACCESS_KEY_ID"), NULL);
	const char *secret = first_of(c->secret_access_key, getenv("AWS_SECRET_ACCESS_KEY"), NULL);
	const char *token = c->access_key_id ? c->session_token : getenv("AWS_SESSION_TOKEN");
	a->id = id ? tnl_strdup(id) : NULL;
	a->secret = secret ? tnl_strdup(secret) : NULL;
	a->token = token ? tnl_strdup(token) : NULL;
	a->tls = make_tls(c, why, cap);
	if (!a->tls) {
		td_aws_free(a);
		return NULL;
	}
	return a;
}

struct td_aws *td_aws_ref(struct td_aws *a)
{
	a->refs++;
	return a;
}

void td_aws_free(struct td_aws *a)
{
	if (!a || --a->refs > 0)
		return;
	if (a->tls)
		tnl_tls_ctx_free(a->tls);
	tnl_free(a->region);
	tnl_free(a->ssm);
	tnl_free(a->ssmmessages);
	tnl_free(a->kms);
	tnl_free(a->id);
	if (a->secret)
		tnl_free_wiped(a->secret, strlen(a->secret));
	tnl_free(a->token);
	tnl_free(a);
}

const char *td_aws_region(const struct td_aws *a)
{
	return a->region;
}

const char *td_aws_endpoint(struct td_aws *a, const char *service)
{
	const char *own = !strcmp(service, "ssm") ? a->ssm : !strcmp(service, "ssmmessages") ? a->ssmmessages :
			  !strcmp(service, "kms") ? (a->kms ? a->kms : a->ssm) : NULL;
	if (own)
		return own;
	if (!strcmp(service, "ssm") && a->ssmmessages)
		return a->ssmmessages;
	if (!strcmp(service, "kms") && a->ssmmessages)
		return a->ssmmessages;
	snprintf(a->made, sizeof a->made, "https://%s.%s.amazonaws.com", service, a->region);
	return a->made;
}

struct tnl_tls_ctx *td_aws_tls(struct td_aws *a)
{
	return a->tls;
}

const struct td_proxy *td_aws_proxy(struct td_aws *a, const char *host)
{
	return NULL;
}

bool td_aws_is_amazon(struct td_aws *a)
{
	return strstr(td_aws_endpoint(a, "ssm"), ".amazonaws.com") != NULL;
}

bool td_aws_stream_url_ok(struct td_aws *a, const char *url, const char **fault)
{
	struct tnl_url u, e;
	const char *f;

	if (tnl_url_parse(url, &u, fault) < 0)
		return false;
	if (strcmp(u.scheme, "wss")) {
		*fault = "not a wss URL";
		return false;
	}
	if (tnl_url_parse(td_aws_endpoint(a, "ssm"), &e, &f) == 0 && !strcmp(e.host, u.host))
		return true;
	size_t n = strlen(u.host);
	if (td_aws_is_amazon(a) && n > 14 && !strcmp(u.host + n - 14, ".amazonaws.com"))
		return true;
	*fault = "host is not the endpoint's";
	return false;
}

bool td_url_presigned(const char *url)
{
	return strstr(url, "X-Amz-Signature=") != NULL;
}

/* ---- keys ------------------------------------------------------------------- */

struct td_creds_req {
	struct td_aws *aws;
	td_creds_fn *fn;
	void *ctx;
	bool cancelled;
};

static void creds_answer(void *arg)
{
	struct td_creds_req *r = arg;
	struct td_aws *a = r->aws;
	struct tnl_sigv4_keys k = { a->id, a->secret, a->token };
	if (!r->cancelled) {
		if (a->id && a->secret)
			r->fn(r->ctx, &k, TD_CRED_OK, NULL);
		else
			r->fn(r->ctx, NULL, TD_CRED_NONE, "no credentials: set access_key_id and secret_access_key");
	}
	td_aws_free(a);
	tnl_free(r);
}

struct td_creds_req *td_aws_creds(struct td_aws *a, bool force_refresh, td_creds_fn *fn, void *ctx)
{
	struct td_creds_req *r = tnl_calloc(1, sizeof *r);
	if (!r)
		return NULL;
	r->aws = td_aws_ref(a);
	r->fn = fn;
	r->ctx = ctx;
	td_loop_defer(a->loop, creds_answer, r);
	return r;
}

void td_creds_cancel(struct td_creds_req *r)
{
	if (r)
		r->cancelled = true;
}
