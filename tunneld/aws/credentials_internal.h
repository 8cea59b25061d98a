/* Private to tunneld/aws/credentials*.c: the plan says how the keys are to be had, the run carries it out.  Each source
 * of keys is a table that the plan names, so that the run knows none of them. */
#ifndef TD_AWS_CREDENTIALS_INTERNAL_H
#define TD_AWS_CREDENTIALS_INTERNAL_H
#include "tunneld/aws/internal.h"

struct td_credentials_source {
	/* Goes for the keys of the step at hand; ends, at once or later, in td_credentials_run_have or _fail. */
	void (*start)(struct td_credentials_run *r);
	/* Lets go of r->mine: the step has ended, or the run is cancelled.  NULL: it keeps nothing. */
	void (*cancel)(struct td_credentials_run *r);
};
extern const struct td_credentials_source td_credentials_static;				   /* _plan.c */
extern const struct td_credentials_source td_credentials_assume_role, td_credentials_web_identity; /* _sts.c */
extern const struct td_credentials_source td_credentials_sso;					   /* _sso.c */
extern const struct td_credentials_source td_credentials_container, td_credentials_instance;	   /* _metadata.c */
extern const struct td_credentials_source td_credentials_process;				   /* _process.c */

/* --- the plan: a base, then roles assumed one after the other --- */
#define TD_ROLES_MAX 8
struct td_role {
	const char *profile; /* NULL: from the environment */
	const char *arn, *session_name, *external_id, *mfa_serial;
	unsigned duration_s; /* 0: the service's default */
};
struct td_credentials_step {
	const struct td_credentials_source *source;
	struct td_role role; /* of a source that assumes one */
};
/* Texts are borrowed from `profiles`, the configuration and the environment. */
struct td_credentials_plan {
	enum td_credentials_state state; /* OK; else NONE or ERROR, and why */
	char why[512];
	char source[256]; /* for people: "profile ops", "the environment" */
	struct td_credentials_step steps[TD_ROLES_MAX + 1];
	int nsteps; /* the last is taken first: it is the base */
	struct td_profiles *profiles;
	/* of the base */
	const char *profile;		 /* that it comes from; NULL: none */
	const char *id, *secret, *token; /* static */
	const char *token_file;		 /* web identity */
	const char *sso_session, *sso_start_url, *sso_region, *sso_account, *sso_role;
	const char *command; /* credential_process */
	char container_url[512];
	const char *container_token, *container_token_file;
};
struct td_credentials_plan *td_credentials_plan_new(const struct td_aws *a); /* reads the files anew; NULL: no memory */
void td_credentials_plan_free(struct td_credentials_plan *p);

/* --- the run --- */
/* keys (taken when emptied) or NULL, st and why.  Called once, from the loop; the run is freed behind it. */
typedef void td_credentials_run_fn(void *ctx, struct td_keys *keys, enum td_credentials_state st, const char *why);
struct td_credentials_run {
	struct td_aws *a;
	const struct td_credentials_plan *plan; /* borrowed until the end */
	td_credentials_run_fn *fn;
	void *ctx;
	int step;	     /* of the plan, at hand */
	struct td_keys keys; /* of the last step that has ended */
	void *mine;	     /* the source's own */
	/* one exchange */
	void (*request)(struct td_credentials_run *r); /* makes it; called again for a retry */
	void (*got)(struct td_credentials_run *r, const struct td_http_client_response *h);
	const char *what; /* for messages: "STS", "SSO" */
	int attempts;
	struct td_http_client *http;
	struct td_timer retry;
	/* the end */
	struct td_soon end;
	enum td_credentials_state state;
	char why[512];
};
struct td_credentials_run *td_credentials_run_start(struct td_aws *a, const struct td_credentials_plan *p,
						    td_credentials_run_fn *fn, void *ctx);
void td_credentials_run_cancel(struct td_credentials_run *r); /* not from inside fn */

/* For sources: the step has failed, and with it the run. */
void td_credentials_run_fail(struct td_credentials_run *r, enum td_credentials_state st, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* r->keys are those of this step: the next one begins, or all is done. */
void td_credentials_run_have(struct td_credentials_run *r);
/* An exchange: `request` makes it with td_credentials_run_send, `got` receives what came: err, or a status below 500.
 */
void td_credentials_run_ask(struct td_credentials_run *r, const char *what, int attempts,
			    void (*request)(struct td_credentials_run *r),
			    void (*got)(struct td_credentials_run *r, const struct td_http_client_response *h));
struct td_credentials_send {
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
void td_credentials_run_send(struct td_credentials_run *r, const struct td_credentials_send *q);

#endif
