/* Inside of the AWS client: environment, endpoints, credentials. */
#ifndef TD_AWS_INTERNAL_H
#define TD_AWS_INTERNAL_H
#include "lib/list.h"
#include "tunneld/aws/aws.h"
#include "tunneld/aws/profile.h"

enum td_service {
	TD_SERVICE_SSM,
	TD_SERVICE_SSMMESSAGES,
	TD_SERVICE_KMS,
	TD_SERVICE_STS,
	TD_SERVICE_SSO,
	TD_SERVICE_SSO_OIDC,
	TD_SERVICE_COUNT
};

/* One set of keys with its end. */
struct td_keys {
	char *id, *secret, *token; /* token NULL: none */
	uint64_t expires_s;	   /* 0: never */
};
void td_keys_fini(struct td_keys *k); /* wipes */
int td_keys_set(struct td_keys *k, const char *id, const char *secret, const char *token,
		uint64_t expires_s) TNL_MUST_USE;

/* --- how the keys are to be had: a base, then roles assumed one after the other --- */
enum td_credentials_base {
	TD_BASE_STATIC,
	TD_BASE_WEB_IDENTITY,
	TD_BASE_SSO,
	TD_BASE_PROCESS,
	TD_BASE_CONTAINER,
	TD_BASE_IMDS
};
#define TD_ROLES_MAX 8
struct td_assume {
	const char *profile; /* NULL: from the environment */
	const char *arn, *session_name, *external_id, *mfa_serial;
	unsigned duration_s; /* 0: the service's default */
};
/* Texts are borrowed from `profiles`, the configuration and the environment. */
struct td_credentials_plan {
	struct td_profiles *profiles;
	enum td_credentials_base base;
	char source[256];		 /* for people: "profile ops", "the environment" */
	const char *profile;		 /* that the base comes from; NULL: none */
	const char *id, *secret, *token; /* static */
	const char *token_file;
	struct td_assume web; /* web identity */
	const char *sso_session, *sso_start_url, *sso_region, *sso_account, *sso_role;
	const char *command; /* credential_process */
	char container_url[512];
	const char *container_token, *container_token_file;
	struct td_assume roles[TD_ROLES_MAX];
	int nroles; /* the first is assumed last */
};
/* Reads the files anew. TD_CREDENTIALS_OK, or NONE/ERROR and *why. td_credentials_plan_fini in any case. */
enum td_credentials_state td_credentials_plan_make(const struct td_aws *a, struct td_credentials_plan *p, char *why,
						   size_t cap);
void td_credentials_plan_fini(struct td_credentials_plan *p);

/* --- carrying a plan out --- */
struct td_credentials_run;
/* keys NULL: st and why. Called once, from the loop; the run is freed by itself after it. */
typedef void td_credentials_run_fn(void *ctx, struct td_keys *keys, enum td_credentials_state st, const char *why,
				   const char *source);
struct td_credentials_run *td_credentials_run_start(struct td_aws *a, td_credentials_run_fn *fn, void *ctx);
void td_credentials_run_cancel(struct td_credentials_run *r);

/* --- the environment of one [aws] block --- */
struct td_aws {
	struct tnl_list node; /* of all, for sharing */
	int refs;
	struct td_loop *loop;
	struct td_aws_config conf; /* its own copy */
	char *stamps;		   /* of the files that it was made from, as they were */
	char *profile;		   /* effective name */
	bool profile_named;	   /* by the configuration or AWS_PROFILE, so it must exist */
	char *region, *suffix, *dual_suffix;
	char *endpoints[TD_SERVICE_COUNT];
	bool configured[TD_SERVICE_COUNT]; /* not AWS's own default */
	bool fips, dualstack;
	struct tnl_tls_ctx *tls;
	struct td_proxy proxy, http_proxy;
	bool has_proxy, has_http_proxy, proxy_explicit;
	char *no_proxy;
	/* credentials */
	struct td_keys keys;
	uint64_t margin; /* seconds before their end from which they are not handed out */
	enum td_credentials_state state;
	char why[512], source[256];
	char refused[132]; /* access key id of which a service said that it has expired */
	struct td_credentials_run *run;
	struct tnl_list waiting; /* td_credentials_request */
	struct td_timer refresh;
	bool answering;
	bool forced;	  /* the run was asked for: what is there was refused */
	unsigned recheck; /* doubling wait while a person is wanted */
	uint64_t used;	  /* when keys were asked for last */
};

/* --- small helpers --- */
const char *td_env_get(const char *name); /* NULL when not set or empty */
bool td_env_is_true(const char *s);
/* AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE, or ~/.aws/…; heap. */
char *td_env_file(const char *env, const char *under_home);
struct td_profiles *td_env_profiles(char *why, size_t cap); /* both files; a missing one is empty */
int td_aws_endpoints_init(struct td_aws *a, const struct td_profiles *p, char *why, size_t cap);
int td_aws_tls_init(struct td_aws *a, const struct td_profiles *p, char *why, size_t cap);
bool td_host_under(const char *host, const char *domain); /* a name below the domain, case ignored */
int td_aws_proxy_init(struct td_aws *a, char *why, size_t cap);
const struct td_proxy *td_aws_proxy_for(struct td_aws *a, bool https, const char *host);
const char *td_aws_url(const struct td_aws *a, enum td_service s);
void td_credentials_init(struct td_aws *a);
void td_credentials_fini(struct td_aws *a);
/* A service says that these have expired: until other ones are found a person is wanted. */
void td_credentials_refused(struct td_aws *a, const char *id);
const char *td_credentials_origin(const struct td_aws *a);

#endif
