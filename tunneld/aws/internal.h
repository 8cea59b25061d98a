/* Inside of the AWS client: the environment of a block, its endpoints and proxies, and what its credentials keep. */
#ifndef TD_AWS_INTERNAL_H
#define TD_AWS_INTERNAL_H
#include "lib/list.h"
#include "tunneld/aws/addresses.h"
#include "tunneld/aws/aws.h"
#include "tunneld/aws/profile.h"

enum td_service {
	TD_SERVICE_SSM,
	TD_SERVICE_SSMMESSAGES,
	TD_SERVICE_KMS,
	TD_SERVICE_STS,
	TD_SERVICE_ECS,
	TD_SERVICE_SSO,
	TD_SERVICE_SSO_OIDC,
	TD_SERVICE_COUNT
};

/* --- keys.c: one set of keys with its end --- */
struct td_keys {
	char *id, *secret, *token; /* token NULL: none */
	uint64_t expires_s;	   /* 0: never */
};
void td_keys_fini(struct td_keys *k); /* wipes */
/* Copies; what was there goes.  0 or TNL_ENOMEM. */
int td_keys_set(struct td_keys *k, const char *id, const char *secret, const char *token, uint64_t ends_s) TNL_MUST_USE;
/* From {AccessKeyId, SecretAccessKey, …, Expiration}; token_key: "SessionToken" or "Token".  TNL_ESYNTAX, TNL_ENOMEM.
 */
int td_keys_parse(struct td_keys *k, const struct tnl_json *o, const char *token_key) TNL_MUST_USE;
const char *td_keys_fault(const struct tnl_json *o); /* which field made it fail */

/* --- credentials.c: the keys of a block, kept and renewed --- */
struct td_credentials_plan;
struct td_credentials_run;
struct td_credentials {
	struct td_keys keys;
	uint64_t margin; /* seconds before their end from which they are not handed out */
	enum td_credentials_state state;
	char why[512], source[256];
	char refused[132]; /* access key id of which a service said that it has expired */
	struct td_credentials_plan *plan;
	struct td_credentials_run *run; /* carries the plan out; NULL: nothing is going on */
	bool forced;			/* the run was asked for: what is there was refused */
	bool stale;			/* looked for again before the next use */
	struct tnl_list waiting, ready; /* td_credentials_request: for keys; for its turn to be answered */
	struct td_soon answer;
	struct td_timer refresh;
	unsigned recheck; /* doubling wait while a person is needed, seconds */
	uint64_t used;	  /* when keys were asked for last */
};
void td_credentials_init(struct td_aws *a);
void td_credentials_fini(struct td_aws *a);
/* Its sources may have other keys by now. */
void td_credentials_renew(struct td_aws *a);
/* A service says that these have expired: until other ones are found a person is needed. */
void td_credentials_refused(struct td_aws *a, const char *id);

/* --- aws.c: one [aws] block --- */
struct td_aws {
	struct tnl_list node; /* of all, for sharing */
	int refs;
	struct td_loop *loop;
	struct td_aws_config conf; /* its own copy */
	char *stamps;		   /* of the files that it was made from, as they were */
	char *profile;		   /* effective name */
	bool profile_named;	   /* by the configuration or AWS_PROFILE, so it must exist */
	char *region, *suffix, *dual_suffix;
	struct td_addresses *endpoints[TD_SERVICE_COUNT]; /* services with equal lists have one between them */
	bool configured[TD_SERVICE_COUNT];		  /* not AWS's own default */
	bool fips, dualstack;
	struct tnl_tls_ctx *tls;
	struct td_proxy proxy, http_proxy;
	bool has_proxy, has_http_proxy, proxy_explicit;
	char *no_proxy;
	struct td_credentials credentials;
	struct td_http_kept kept; /* for signed calls */
	struct tnl_list lookups;  /* of target.c, whose forget frees them; NULL: there are none */
	void (*forget)(struct td_aws *a);
	size_t nlookups;
};
static inline uint64_t td_aws_now(const struct td_aws *a) /* unix seconds */
{
	return a->loop->wall_ms / 1000;
}

/* --- verdict.c: what an answer says --- */
struct td_aws_asked {
	struct td_aws *aws;
	const char *endpoint; /* a URL */
	const char *key_id;   /* the request was signed with */
	bool with_token;      /* and with a session token */
};
/* Fills err, type, cred and text; text is r->json's, h's or in buf. */
void td_aws_judge(const struct td_aws_asked *q, const struct td_http_client_response *h, struct td_aws_reply *r,
		  char *buf, size_t cap);
/* The service's own words of a refusal, or "". */
const char *td_aws_said(const struct td_aws_reply *r);
bool td_aws_says_expired(const char *type);
bool td_aws_says_other_keys(const char *type); /* a search for keys may give others that are taken */

/* --- environment.c --- */
const char *td_env_get(const char *name); /* NULL when not set or empty */
bool td_env_is_true(const char *s);
/* AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE, or ~/.aws/…; heap. */
char *td_env_file(const char *env, const char *under_home);
char *td_env_cache_file(const char *dir, const char *name_to_hash); /* ~/DIR/SHA1.json; heap */
/* Both files; a missing one is empty. What is wrong in one is in *why ("": nothing) and costs only what it concerns.
 * NULL: no memory. */
struct td_profiles *td_env_profiles(char *why, size_t cap);
bool td_env_has_keys(void);
int td_aws_tls_init(struct td_aws *a, const struct td_profiles *p, char *why, size_t cap);

/* --- endpoint.c, proxy.c --- */
int td_aws_endpoints_init(struct td_aws *a, const struct td_profiles *p, char *why, size_t cap);
void td_aws_endpoints_fini(struct td_aws *a);
const char *td_aws_url(const struct td_aws *a, enum td_service s); /* the one in use */
struct td_addresses *td_aws_addresses(const struct td_aws *a, const char *service);
bool td_host_under(const char *host, const char *domain); /* a name below the domain, case ignored */
int td_aws_proxy_init(struct td_aws *a, char *why, size_t cap);
const struct td_proxy *td_aws_proxy_for(struct td_aws *a, bool https, const char *host, uint16_t port);

#endif
