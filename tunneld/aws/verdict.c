/* What an answer to a signed call says: whether the network, the keys, the caller's rights or something that is no API
 * at all stood in the way, in words for a person.  The peer's own words are kept: they stand behind ours. */
#include "lib/http.h"
#include "lib/num.h"
#include "tunneld/aws/internal.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define CLOCK_OFF_S 240 /* AWS allows 300 */

static bool is_one_of(const char *type, const char *const *list)
{
	for (; *list; list++)
		if (strcmp(type, *list) == 0)
			return true;
	return false;
}

bool td_aws_throttled(const char *type)
{
	/* What the SDKs take for it ("Throttling" and its kin have many endings). */
	static const char *const list[] = {"TooManyRequestsException",
					   "RequestLimitExceeded",
					   "BandwidthLimitExceeded",
					   "LimitExceededException",
					   "ProvisionedThroughputExceededException",
					   "TransactionInProgressException",
					   "EC2ThrottledException",
					   "SlowDown",
					   "PriorRequestNotComplete",
					   NULL};

	return strncmp(type, "Throttl", 7) == 0 || strncmp(type, "RequestThrottled", 16) == 0 || is_one_of(type, list);
}

bool td_aws_says_expired(const char *type)
{
	static const char *const list[] = {"ExpiredTokenException", "ExpiredToken", "TokenRefreshRequired", NULL};

	return is_one_of(type, list);
}

static bool is_unknown_key(const char *type)
{
	static const char *const list[] = {"UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId",
					   "NotAuthorizedException", NULL};

	return is_one_of(type, list);
}

static bool is_bad_signature(const char *type)
{
	static const char *const list[] = {"InvalidSignatureException",
					   "SignatureDoesNotMatch",
					   "RequestExpired",
					   "RequestTimeTooSkewed",
					   "IncompleteSignatureException",
					   "IncompleteSignature",
					   "MissingAuthenticationToken",
					   "AuthFailure",
					   NULL};

	return is_one_of(type, list);
}

bool td_aws_says_other_keys(const char *type)
{
	return td_aws_says_expired(type) || is_unknown_key(type) || is_bad_signature(type);
}

/* --- the words ------------------------------------------------------------------------------ */

struct words {
	char *buf;
	size_t cap;
	const char *theirs; /* what the peer said, or "" */
};

static const char *write_words(const struct words *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Ours, and theirs behind it. */
static const char *write_words(const struct words *w, const char *fmt, ...)
{
	char ours[400], theirs[260];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(ours, sizeof(ours), fmt, ap);
	va_end(ap);
	snprintf(theirs, sizeof(theirs), "%s", w->theirs); /* they may stand where we write */
	snprintf(w->buf, w->cap, theirs[0] ? "%s (%s)" : "%s", ours, theirs);
	return w->buf;
}

/* Seconds that our clock is ahead of the peer's (negative: behind), by its Date header. */
static int64_t clock_ahead(const struct td_aws_asked *q, const struct tnl_http_head *h)
{
	size_t n = 0;
	const char *date = h ? tnl_http_get(h, "date", &n) : NULL;
	uint64_t theirs;

	if (!date || tnl_http_date_parse(date, n, &theirs) != 0)
		return 0;
	return (int64_t)td_aws_now(q->aws) - (int64_t)theirs;
}

/* AWS: "Credential should be scoped to a valid region."; gateways of ours say what region they are of. */
static bool blames_region(const char *text)
{
	return strstr(text, "scoped to") != NULL && strcasestr(text, "region") != NULL;
}

/* --- keys ----------------------------------------------------------------------------------- */

static const char *describe_signature(const struct td_aws_asked *q, const struct tnl_http_head *h,
				      const struct words *w)
{
	int64_t off = clock_ahead(q, h), abs = off < 0 ? -off : off;

	if (abs > CLOCK_OFF_S)
		return write_words(w, "this machine's clock is %lld %s %s: set it (timedatectl set-ntp true)",
				   (long long)(abs < 120 ? abs : abs / 60), abs < 120 ? "seconds" : "minutes",
				   off > 0 ? "fast" : "slow");
	if (blames_region(w->theirs))
		return write_words(w, "the region %s is not the endpoint's: check region", td_aws_region(q->aws));
	return write_words(w, "the signature was refused: check the secret access key of %s",
			   td_credentials_origin(q->aws));
}

static const char *describe_unknown_key(const struct td_aws_asked *q, const struct words *w)
{
	const char *from = td_credentials_origin(q->aws);

	if (strncmp(q->key_id, "ASIA", 4) == 0 && !q->with_token)
		return write_words(w,
				   "the access key of %s is a temporary one, and its session token is missing: set "
				   "session_token (AWS_SESSION_TOKEN, aws_session_token)",
				   from);
	if (q->with_token)
		return write_words(w,
				   "the access key or the session token of %s is not known: check access_key_id and "
				   "session_token, and that they belong together",
				   from);
	return write_words(w, "the access key of %s is not known: check access_key_id, and that the key is active",
			   from);
}

/* Refusals of the keys themselves, with the cause and the cure. */
static void judge_keys(const struct td_aws_asked *q, const struct tnl_http_head *h, const struct words *w,
		       struct td_aws_reply *r)
{
	if (td_aws_says_expired(r->type)) {
		r->cred = TD_CREDENTIALS_NEEDS_LOGIN;
		r->text = write_words(w, "the credentials of %s have expired: renew them there",
				      td_credentials_origin(q->aws));
	} else if (is_unknown_key(r->type)) {
		r->cred = TD_CREDENTIALS_ERROR;
		r->text = describe_unknown_key(q, w);
	} else if (is_bad_signature(r->type)) {
		r->cred = TD_CREDENTIALS_ERROR;
		r->text = describe_signature(q, h, w);
	} else {
		return;
	}
	r->err = TNL_EAUTH;
}

/* --- bodies ---------------------------------------------------------------------------------- */

const char *td_aws_said(const struct td_aws_reply *r)
{
	const char *t = tnl_json_str(tnl_json_iget(r->json, "message"));
	return t ? t : "";
}

static void judge_json(const struct tnl_json *j, const struct tnl_http_head *h, struct td_aws_reply *r)
{
	size_t n = 0;
	const char *t = tnl_json_str(tnl_json_iget(j, "__type"));
	const char *hash, *header = h ? tnl_http_get(h, "x-amzn-errortype", &n) : NULL;

	if (!t)
		t = tnl_json_str(tnl_json_iget(j, "code"));
	if (t) {
		hash = strrchr(t, '#');
		snprintf(r->type, sizeof(r->type), "%s", hash ? hash + 1 : t);
	} else if (header) {
		snprintf(r->type, sizeof(r->type), "%.*s", (int)n, header);
	}
	r->type[strcspn(r->type, ":")] = 0;
	r->text = td_aws_said(r);
}

/* Refusals of channels are XML: <AccessDeniedException><Message>text</Message></AccessDeniedException>. */
static void judge_xml(struct td_aws_reply *r, char *buf, size_t cap)
{
	static const char open[] = "<Message>", close[] = "</Message>";
	const char *b = (const char *)r->body, *text, *end;
	size_t n = 0;

	if (r->body_len < 3 || b[0] != '<')
		return;
	while (n + 1 < r->body_len && n + 1 < sizeof(r->type) && isalpha((unsigned char)b[n + 1]))
		n++;
	if (n + 1 >= r->body_len || b[n + 1] != '>')
		return;
	text = memmem(b, r->body_len, open, sizeof(open) - 1);
	end = text ? memmem(text, (size_t)(b + r->body_len - text), close, sizeof(close) - 1) : NULL;
	if (!end)
		return;
	text += sizeof(open) - 1;
	snprintf(r->type, sizeof(r->type), "%.*s", (int)n, b + 1);
	snprintf(buf, cap, "%.*s", (int)(end - text), text);
	r->text = buf;
}

/* --- what is no API --------------------------------------------------------------------------- */

static bool is_html(const struct td_http_client_response *h)
{
	size_t n = 0;
	const char *type = tnl_http_get(h->head, "content-type", &n);

	if (type && n >= 9 && strncasecmp(type, "text/html", 9) == 0)
		return true;
	return h->body_len >= 5 && (strncasecmp((const char *)h->body, "<html", 5) == 0 ||
				    strncasecmp((const char *)h->body, "<!doc", 5) == 0);
}

/* Portals, filters and wrong addresses answer with pages and redirections, with any status. */
static bool is_no_api(const struct td_http_client_response *h, const struct td_aws_reply *r)
{
	if (r->json || r->type[0])
		return false;
	return is_html(h) || (h->status >= 300 && h->status < 400);
}

static void judge_no_api(const struct td_aws_asked *q, const struct td_http_client_response *h, struct td_aws_reply *r,
			 const struct words *w)
{
	size_t n = 0, to_len = 0;
	const char *type = tnl_http_get(h->head, "content-type", &n), *to = tnl_http_get(h->head, "location", &to_len);

	r->err = TNL_EPROTO;
	r->text = write_words(w,
			      "%s answers with status %d, %.*s%s%.*s: that is not AWS's API; a login page of the "
			      "network, a filter, a proxy or a wrong endpoint",
			      q->endpoint, h->status, type ? (int)TNL_MIN(n, (size_t)60) : 7, type ? type : "no type",
			      to ? ", and sends to " : "", to ? (int)TNL_MIN(to_len, (size_t)120) : 0, to ? to : "");
}

/* What common servers of TLS tell who speaks plain HTTP to their port. */
static bool wants_tls(const struct td_aws_asked *q, const struct td_http_client_response *h,
		      const struct td_aws_reply *r)
{
	return strncmp(q->endpoint, "http:", 5) == 0 && h->status == 400 && !r->json && !r->type[0] &&
	       memmem(h->body, h->body_len, "HTTPS", 5) != NULL;
}

/* --- all ---------------------------------------------------------------------------------------- */

static void judge_no_answer(const struct td_http_client_response *h, struct td_aws_reply *r)
{
	r->err = h->err == TNL_ETIMEOUT ? TNL_ETIMEOUT : TNL_EUNREACH;
	r->text = h->why ? h->why : tnl_err_text(h->err);
}

static void judge_refusal(const struct td_aws_asked *q, const struct td_http_client_response *h, struct td_aws_reply *r,
			  char *buf, size_t cap)
{
	r->err = TNL_EREFUSED;
	if (r->json)
		judge_json(r->json, h->head, r);
	else
		judge_xml(r, buf, cap);
	judge_keys(q, h->head, &(struct words){buf, cap, r->text}, r);
}

void td_aws_judge(const struct td_aws_asked *q, const struct td_http_client_response *h, struct td_aws_reply *r,
		  char *buf, size_t cap)
{
	r->text = "";
	if (h->err) {
		judge_no_answer(h, r);
		return;
	}
	if (h->status < 200 || h->status >= 300)
		judge_refusal(q, h, r, buf, cap);
	if (wants_tls(q, h, r)) {
		r->err = TNL_EPROTO;
		r->text = write_words(&(struct words){buf, cap, ""}, "%s speaks TLS: say https:// in place of http://",
				      q->endpoint);
	} else if (is_no_api(h, r)) {
		judge_no_api(q, h, r, &(struct words){buf, cap, ""});
	}
}
