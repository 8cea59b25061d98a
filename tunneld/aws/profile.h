/* The shared configuration and credentials files of the AWS SDKs: [default], [profile NAME],
 * [sso-session NAME] and [services NAME] in the one, [NAME] in the other. What stands in the
 * credentials file wins. Nested settings ("ssm =" and an indented "endpoint_url = …") are read
 * as "ssm.endpoint_url". */
#ifndef TD_AWS_PROFILE_H
#define TD_AWS_PROFILE_H
#include "lib/err.h"
#include <stdbool.h>
#include <stddef.h>

enum td_profile_kind { TD_PROFILE, TD_PROFILE_SSO_SESSION, TD_PROFILE_SERVICES };
enum td_profile_file { TD_PROFILE_CONFIG, TD_PROFILE_CREDENTIALS };
#define TD_PROFILE_FILE_MAX (1u << 20)

struct td_profiles;
struct td_profiles *td_profiles_new(void);    /* NULL: no memory */
void td_profiles_free(struct td_profiles *p); /* wipes the values */
/* Adds the text of one file. name: for errors. 0, TNL_ENOMEM, or TNL_ESYNTAX and *why = "NAME:LINE: what is wrong" of
 * the first mistake: all that is right is there then, and td_profiles_fault says what a mistake concerns. */
int td_profiles_parse(struct td_profiles *p, const char *text, size_t n, enum td_profile_file file, const char *name,
		      char *why, size_t cap) TNL_MUST_USE;
/* A file that gave nothing at all. */
void td_profiles_note(struct td_profiles *p, const char *why);
/* What was wrong in that section; of one that is not there, in what may have been it. NULL: nothing. */
const char *td_profiles_fault(const struct td_profiles *p, enum td_profile_kind kind, const char *section);
/* fn for each section of the kind, once. */
void td_profiles_each(const struct td_profiles *p, enum td_profile_kind kind, void (*fn)(void *ctx, const char *name),
		      void *ctx);
bool td_profiles_has(const struct td_profiles *p, enum td_profile_kind kind, const char *section);
/* Borrowed until free; NULL: not set. An empty value counts as not set. Keys in lower case. */
const char *td_profiles_get(const struct td_profiles *p, enum td_profile_kind kind, const char *section,
			    const char *key);

#endif
