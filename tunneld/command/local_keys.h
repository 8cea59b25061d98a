/* What tunneld local keeps from run to run, in its state directory: certificates of an authority of its own, the keys
 * of its user and its agent, and the files that the aws command reads. */
#ifndef TD_COMMAND_LOCAL_KEYS_H
#define TD_COMMAND_LOCAL_KEYS_H
#include "tunneld/process/state.h"

#define TD_LOCAL_REGION "eu-west-1"

struct td_local_keys {
	char user_id[32], user_secret[64], agent_id[32], agent_secret[64];
};
/* What the last run left, as far as it is valid, else made anew: keys, credentials, config, ca.pem, gateway.pem,
 * gateway.key.  0, or -1 after an error in the log. */
int td_local_keys_open(const struct td_state *s, struct td_local_keys *k);
/* One small file beside them.  0, or -1 after an error in the log. */
int td_local_keys_write(const struct td_state *s, const char *name, const char *text);
char *td_local_keys_read(const struct td_state *s, const char *name); /* heap (tnl_free); NULL: not there */

#endif
