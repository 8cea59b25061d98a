/* Access keys made here, for tunneld local and tunneld init. */
#ifndef TD_COMMAND_NEW_KEYS_H
#define TD_COMMAND_NEW_KEYS_H

enum { TD_NEW_KEY_ID = 20, TD_NEW_SECRET = 40 };
void td_new_key_id(char out[TD_NEW_KEY_ID + 1]);
void td_new_secret(char out[TD_NEW_SECRET + 1]); /* 238 random bits */

#endif
