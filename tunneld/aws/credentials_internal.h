/* Private to tunneld/creds_*.c: one run that carries out a plan, step by step. */
#ifndef TD_AWS_CREDENTIALS_INTERNAL_H
#define TD_AWS_CREDENTIALS_INTERNAL_H
#include "tunneld/aws/internal.h"

struct td_capture;
struct td_credentials_run {
	struct td_aws *a;
	struct td_credentials_plan plan;
	td_credentials_run_fn *fn;
	void *ctx;
	struct td_keys cur; /* of the base, then of each role */
	int role;	    /* the next to assume; -1: none is left */
	/* one exchange */
	void (*step)(struct td_credentials_run *r); /* makes the request; called again for a retry */
	void (*got)(struct td_credentials_run *r, const struct td_http_client_response *h);
	const char *what; /* for messages: "STS", "SSO" */
	int attempts;
	struct td_http_client *http;
	struct td_timer timer;
	struct td_capture *process;
	/* between steps */
	struct tnl_json *sso; /* the cached token file */
	char *sso_path;
	char imds_token[512], imds_role[160];
	/* the end */
	enum td_credentials_state state;
	char why[512];
	bool finished, cancelled;
};

void td_credentials_run_fail(struct td_credentials_run *r, enum td_credentials_state st, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void td_credentials_run_have(struct td_credentials_run *r); /* r->cur is filled: assume the next role, or done */
/* Starts a sequence: step makes the request with td_credentials_run_request, got receives what came (err or a status
 * below 500). */
void td_credentials_run_ask(struct td_credentials_run *r, const char *what, int attempts,
			    void (*step)(struct td_credentials_run *r),
			    void (*got)(struct td_credentials_run *r, const struct td_http_client_response *h));
struct td_credentials_run_request {
	const char *method, *url;
	const char *const (*headers)[2];
	size_t n;
	const void *body;
	size_t len;
	const struct td_keys *keys; /* NULL: unsigned */
	const char *service;
	uint64_t timeout_ns;
	bool direct; /* never through a proxy */
};
void td_credentials_run_request(struct td_credentials_run *r, const struct td_credentials_run_request *q);
/* {AccessKeyId, SecretAccessKey, …, Expiration} in this object; token_key: "SessionToken" or "Token". */
int td_credentials_run_keys(struct td_credentials_run *r, const struct tnl_json *o, const char *token_key) TNL_MUST_USE;
uint64_t td_credentials_run_now(const struct td_credentials_run *r); /* unix seconds */
char *td_env_cache_file(const char *dir, const char *name_to_hash);  /* ~/DIR/SHA1.json; heap */

void td_credentials_web_identity(struct td_credentials_run *r); /* creds_sts.c */
void td_credentials_assume(struct td_credentials_run *r, const struct td_assume *role);
void td_credentials_sso(struct td_credentials_run *r);	     /* creds_sso.c */
void td_credentials_container(struct td_credentials_run *r); /* creds_local.c */
void td_credentials_imds(struct td_credentials_run *r);
void td_credentials_process(struct td_credentials_run *r); /* creds_process.c */
void td_credentials_process_cancel(struct td_credentials_run *r);

#endif
